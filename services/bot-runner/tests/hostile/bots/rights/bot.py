"""Wants to be somebody else, and asks the kernel for what only few get."""
import ctypes
import os

from attempts import LIBC, attempt, checked, hostile, syscall

bot = hostile()
NOTHING = ctypes.create_string_buffer(4096)
attempt("be root, by ctypes", calls="EPERM")(lambda _: checked(LIBC.setuid(0)))
attempt("be a neighbour", calls="EPERM")(lambda _: os.setresuid(200_001, 200_001, 200_001))
attempt("be of another group", calls="EPERM")(lambda _: os.setresgid(0, 0, 0))
attempt("be of all groups", calls="EPERM")(lambda _: os.setgroups([0]))
attempt("have all capabilities", calls="EPERM")(lambda _: syscall("capset", NOTHING, NOTHING))
attempt("mount", calls="EPERM")(lambda _: syscall("mount", b"none", b"/tmp", b"tmpfs", 0, None))
attempt("remount its code", calls="EPERM")(lambda _: syscall("mount", b"none", b"/app", None, 32 | 4096, None))
attempt("unmount", calls="EPERM")(lambda _: syscall("umount2", b"/app", 2))
attempt("another root", calls="EPERM")(lambda _: os.chroot("/tmp"))
attempt("turn the root around", calls="EPERM")(lambda _: syscall("pivot_root", b"/", b"/tmp"))
attempt("a neighbour's name space", calls="EPERM")(lambda _: syscall("setns", 3, 0))
for name, arguments in (
    ("bpf", (5, NOTHING, 128)), ("perf_event_open", (NOTHING, 0, -1, -1, 0)), ("userfaultfd", (1,)), ("io_uring_setup", (8, NOTHING)), ("io_uring_enter", (3, 1, 0, 0, 0, 0)),
    ("keyctl", (0, -3, 0)), ("add_key", (b"user", b"x", b"y", 1, -3)), ("request_key", (b"user", b"x", None, -3)), ("init_module", (NOTHING, 10, b"")),
    ("finit_module", (0, b"", 0)), ("kexec_load", (0, 0, None, 0)), ("reboot", (0xFEE1DEAD, 672274793, 0, None)), ("swapon", (b"/tmp", 0)), ("syslog", (3, NOTHING, 100)),
    ("quotactl", (0, None, 0, None)), ("personality", (0x0040000,)), ("seccomp", (1, 0, NOTHING)), ("landlock_create_ruleset", (None, 0, 1)), ("move_mount", (-1, b"", -1, b"", 0)),
    ("open_tree", (-100, b"/", 1)), ("mount_setattr", (-100, b"/", 0, NOTHING, 32)), ("splice", (0, None, 1, None, 10, 0)), ("vmsplice", (1, None, 0, 0)), ("setxattr", (b"/tmp", b"user.x", b"y", 1, 0)),
):
    attempt(f"the call {name}", calls="EPERM")(lambda _, a=(name, *arguments): syscall(*a))
attempt("another seccomp filter", calls="EPERM")(lambda _: checked(LIBC.prctl(22, 2, NOTHING, 0, 0)))
attempt("dump itself", calls="EPERM")(lambda _: checked(LIBC.prctl(4, 1, 0, 0, 0)))
attempt("outlive the platform", calls="EPERM")(lambda _: checked(LIBC.prctl(1, 0, 0, 0, 0)))
attempt("adopt orphans", calls="EPERM")(lambda _: checked(LIBC.prctl(36, 1, 0, 0, 0)))
attempt("let anybody trace it", calls="EPERM")(lambda _: checked(LIBC.prctl(0x59616D61, -1, 0, 0, 0)))
attempt("set the clock", calls="EPERM")(lambda _: __import__("time").clock_settime(0, 0))
attempt("rename the machine", calls="EPERM")(lambda _: __import__("socket").sethostname("mine"))
attempt("type into the terminal", calls="EPERM")(lambda _: __import__("fcntl").ioctl(0, 0x5412, b"x"))
attempt("a session of its own", calls="EPERM")(lambda _: os.setsid())
attempt("accounting", calls="EPERM")(lambda _: checked(LIBC.acct(b"/tmp/acct")))
