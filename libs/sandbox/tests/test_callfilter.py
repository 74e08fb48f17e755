"""The filter of calls, run as the kernel would run it, for both processors."""

from __future__ import annotations

import errno
import struct

import pytest
from loquat_sandbox import bpf
from loquat_sandbox.architectures import ARM64, X86_64, Architecture
from loquat_sandbox.callfilter import program

REFUSED, NOT_THERE = bpf.refuse(errno.EPERM), bpf.refuse(errno.ENOSYS)
BOTH = pytest.mark.parametrize("architecture", [X86_64, ARM64], ids=lambda a: a.name)
JUNK = 0xDEAD << 32  # in the half of a register that the kernel does not look at


def verdict(filter_: bytes, number: int, *arguments: int, audit: int) -> int:
    """What struct sock_filter[] says of struct seccomp_data."""
    data = struct.pack("<iIQ6Q", number, audit, 0, *(a & 0xFFFFFFFFFFFFFFFF for a in (*arguments, 0, 0, 0, 0, 0, 0)[:6]))
    steps, at, held = list(struct.iter_unpack("<HBBI", filter_)), 0, 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        match code:
            case bpf.LOAD:
                (held,) = struct.unpack_from("<I", data, value)
            case bpf.AND:
                held &= value
            case bpf.IF_EQUAL:
                at += yes if held == value else no
            case bpf.IF_AT_LEAST:
                at += yes if held >= value else no
            case bpf.RETURN:
                return value
            case _:
                raise AssertionError(f"no such instruction: {code:#x}")


class Judge:
    def __init__(self, architecture: Architecture, *, own_root: bool = True) -> None:
        self.architecture, self.filter = architecture, program(architecture, own_root=own_root)

    def __call__(self, call: str, *arguments: int) -> int:
        return verdict(self.filter, self.architecture[call], *arguments, audit=self.architecture.audit)


@BOTH
def test_what_bots_live_on_is_allowed(architecture: Architecture) -> None:
    judge = Judge(architecture)
    names = "read write openat mmap futex epoll_ctl connect recvfrom getrandom exit_group unlinkat clock_gettime prlimit64 rt_sigreturn"
    assert {name: judge(name) for name in names.split() if judge(name) != bpf.ALLOW} == {}


@BOTH
def test_what_reaches_beyond_the_process_is_refused(architecture: Architecture) -> None:
    judge = Judge(architecture)
    names = (
        "execve execveat ptrace process_vm_readv process_vm_writev pidfd_open pidfd_getfd kill tkill unshare setns mount umount2 pivot_root"
        " chroot setuid setresuid setgroups capset bpf perf_event_open userfaultfd io_uring_setup io_uring_enter keyctl add_key memfd_create"
        " shmget msgget semget setrlimit setpriority sched_setscheduler personality kcmp open_by_handle_at bind listen accept accept4 splice tee"
        " vmsplice seccomp landlock_restrict_self mount_setattr mincore preadv2 fadvise64 init_module reboot mknodat setxattr"
    )
    assert {name: judge(name) for name in names.split() if judge(name) != REFUSED} == {}


@BOTH
def test_a_number_that_nobody_knows_yet_is_refused(architecture: Architecture) -> None:
    assert verdict(program(architecture, own_root=True), 9_999, audit=architecture.audit) == REFUSED


def test_another_abi_of_the_same_processor_ends_the_process() -> None:
    judge = program(X86_64, own_root=True)
    i386, x32 = 0x40000003, 0x40000000
    assert verdict(judge, 1, audit=i386) == bpf.KILL
    assert verdict(judge, x32 | 1, audit=X86_64.audit) == bpf.KILL
    assert verdict(program(ARM64, own_root=True), 64, audit=X86_64.audit) == bpf.KILL


@BOTH
def test_threads_are_made_and_processes_are_not(architecture: Architecture) -> None:
    judge = Judge(architecture)
    thread = 0x3D0F00  # what glibc passes for pthread_create: VM FS FILES SIGHAND THREAD SYSVSEM SETTLS ...
    assert judge("clone", thread) == bpf.ALLOW
    assert judge("clone", 0x1200011) == REFUSED, "fork()"
    assert judge("clone", thread | 0x10000000) == REFUSED, "with a user namespace"
    assert judge("clone3") == NOT_THERE, "its flags cannot be seen: the C library falls back to clone"


@BOTH
@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((2, 1, 0), bpf.ALLOW),
        ((10, 1 | 0o2000000 | 0o4000, 6), bpf.ALLOW),
        ((2 | JUNK, 1 | JUNK, 0 | JUNK), bpf.ALLOW),
        ((2, 1, 262), REFUSED),
        ((2, 1, 132), REFUSED),
        ((2, 2, 0), REFUSED),
        ((2, 3, 0), REFUSED),
        ((1, 1, 0), REFUSED),
        ((16, 3, 0), REFUSED),
        ((17, 3, 0), REFUSED),
        ((38, 5, 0), REFUSED),
        ((40, 1, 0), REFUSED),
    ],
    ids=["tcp", "tcp6", "junk above", "mptcp", "sctp", "udp", "raw", "unix", "netlink", "packet", "alg", "vsock"],
)
def test_of_sockets_only_tcp_is_made(architecture: Architecture, arguments: tuple[int, ...], wanted: int) -> None:
    assert Judge(architecture)("socket", *arguments) == wanted


@BOTH
def test_no_send_connects_by_fast_open(architecture: Architecture) -> None:
    judge, fast = Judge(architecture), 0x20000000
    for call, place in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
        before = (0,) * place
        assert judge(call, *before, 0x4000) == bpf.ALLOW
        assert judge(call, *before, fast | 0x4000) == REFUSED


@BOTH
def test_options_that_raise_what_the_kernel_holds_are_refused(architecture: Architecture) -> None:
    judge = Judge(architecture)
    assert [judge("setsockopt", 3, 1, 9), judge("setsockopt", 3, 6, 1), judge("setsockopt", 3, 41, 26)] == [bpf.ALLOW] * 3
    assert [judge("setsockopt", 3, *o) for o in ((1, 7), (1, 8), (1, 36), (6, 31), (6, 9), (0, 9), (41, 1))] == [REFUSED] * 7
    assert [judge("fcntl", 3, c) for c in (1, 4, 1030)] == [bpf.ALLOW] * 3
    assert [judge("fcntl", 3, c) for c in (8, 1031, 1033, 1026)] == [REFUSED] * 4, "SETOWN, SETPIPE_SZ, ADD_SEALS, NOTIFY"
    assert judge("ioctl", 0, 0x5421) == bpf.ALLOW
    assert judge("ioctl", 0, 0x5412) == REFUSED, "TIOCSTI types for the one at the terminal"
    assert judge("prctl", 15) == bpf.ALLOW
    assert judge("prctl", 4, 1) == REFUSED, "PR_SET_DUMPABLE"


@BOTH
def test_nothing_is_told_of_other_processes(architecture: Architecture) -> None:
    judge = Judge(architecture)
    another = (~4711 << 3) | 2
    assert (judge("clock_gettime", 1), judge("clock_gettime", another), judge("clock_nanosleep", another)) == (bpf.ALLOW, REFUSED, REFUSED)
    for call in ("sched_getaffinity", "sched_getscheduler", "sched_getparam", "getsid", "getpgid"):
        assert (judge(call, 0), judge(call, 4711)) == (bpf.ALLOW, REFUSED)
    assert (judge("getpriority", 0, 0), judge("getpriority", 0, 4711), judge("getpriority", 2, 0)) == (bpf.ALLOW, REFUSED, REFUSED)
    assert (judge("getsockopt", 3, 1, 4), judge("getsockopt", 3, 6, 11)) == (bpf.ALLOW, bpf.ALLOW)
    assert [judge("getsockopt", 3, 1, option) for option in (17, 59, 77, 31)] == [REFUSED] * 4, "PEERCRED PEERGROUPS PEERPIDFD PEERSEC"
    assert [judge(call) for call in ("sysinfo", "statfs", "fstatfs", "get_robust_list")] == [REFUSED] * 4


@BOTH
def test_pairs_of_sockets_are_streams(architecture: Architecture) -> None:
    judge = Judge(architecture)
    assert (judge("socketpair", 1, 1 | 0o2000000, 0), judge("socketpair", 1, 2, 0), judge("socketpair", 1, 5, 0)) == (
        bpf.ALLOW,
        REFUSED,
        REFUSED,
    )


@BOTH
def test_limits_are_read_and_never_set(architecture: Architecture) -> None:
    judge = Judge(architecture)
    assert judge("prlimit64", 0, 7, 0, 0x7FFF1234) == bpf.ALLOW
    assert judge("prlimit64", 0, 7, 0x7FFF1234, 0) == REFUSED
    assert judge("prlimit64", 0, 7, 1 << 40, 0) == REFUSED, "a pointer whose low half is zero"
    assert judge("prlimit64", 77, 7, 0, 0) == REFUSED, "another process"


@BOTH
def test_without_a_root_of_its_own_it_changes_no_file_modes_and_signals_nobody(architecture: Architecture) -> None:
    inside, outside = Judge(architecture), Judge(architecture, own_root=False)
    for call in ("fchmod", "fchmodat", "fchmodat2", "utimensat"):
        assert (inside(call), outside(call)) == (bpf.ALLOW, REFUSED)
    assert (inside("tgkill", 1), inside("tgkill", 2), outside("tgkill", 1)) == (bpf.ALLOW, REFUSED, REFUSED)


@BOTH
def test_a_program_fits_in_the_kernel(architecture: Architecture) -> None:
    assert len(program(architecture, own_root=True)) // 8 <= bpf.LONGEST
    with pytest.raises(ValueError, match="jump over more than 255"):
        bpf.packed([bpf.Step(bpf.IF_EQUAL, 1, no=256)])
