"""Reaches for other processes: looks into them, signals them, slows them down."""
import ctypes
import os
import signal

from attempts import attempt, hostile, syscall

bot = hostile()
BUFFER = ctypes.create_string_buffer(64)
for who, pid in (("the runner", lambda aim: aim.runner), ("a neighbour", lambda aim: aim.neighbour_pid), ("number 1", lambda aim: 1), ("its parent", lambda aim: os.getppid())):
    attempt(f"ptrace {who}", calls="EPERM")(lambda aim, pid=pid: syscall("ptrace", 16, pid(aim), 0, 0))
    attempt(f"read the memory of {who}", calls="EPERM")(lambda aim, pid=pid: syscall("process_vm_readv", pid(aim), BUFFER, 1, BUFFER, 1, 0))
    attempt(f"write the memory of {who}", calls="EPERM")(lambda aim, pid=pid: syscall("process_vm_writev", pid(aim), BUFFER, 1, BUFFER, 1, 0))
    attempt(f"a handle of {who}", calls="EPERM")(lambda aim, pid=pid: os.pidfd_open(pid(aim)))
    attempt(f"compare itself with {who}", calls="EPERM")(lambda aim, pid=pid: syscall("kcmp", os.getpid(), pid(aim), 0, 0, 0))
    attempt(f"kill {who}", calls="EPERM")(lambda aim, pid=pid: os.kill(pid(aim), signal.SIGTERM))
    attempt(f"kill a thread of {who}", calls="EPERM", processes="ESRCH|EPERM")(lambda aim, pid=pid: syscall("tgkill", pid(aim), pid(aim), 15) if pid(aim) != os.getpid() else syscall("tkill", 1, 15))
    attempt(f"slow {who} down", calls="EPERM")(lambda aim, pid=pid: os.setpriority(os.PRIO_PROCESS, pid(aim), 19))
    attempt(f"change limits of {who}", calls="EPERM")(lambda aim, pid=pid: __import__("resource").prlimit(pid(aim), 7, (1, 1)) if pid(aim) != os.getpid() else syscall("setrlimit", 7, b"\1\0\0\0\0\0\0\0" * 2))
attempt("a descriptor of another process", calls="EPERM")(lambda aim: syscall("pidfd_getfd", 3, 0, 0))
attempt("a signal by handle", calls="EPERM")(lambda aim: syscall("pidfd_send_signal", 3, 9, 0, 0))
attempt("kill everybody", calls="EPERM")(lambda aim: os.kill(-1, signal.SIGKILL))
attempt("kill its group", calls="EPERM")(lambda aim: os.killpg(0, signal.SIGTERM))
attempt("signals by its input", calls="EPERM")(lambda aim: __import__("fcntl").fcntl(0, 8, aim.runner))  # F_SETOWN
attempt("go before all others", calls="EPERM")(lambda aim: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10)))
attempt("run as an ordinary process again", calls="EPERM")(lambda aim: os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0)))
attempt("take a processor for itself", calls="EPERM")(lambda aim: os.sched_setaffinity(0, {0}))
attempt("go before others a little", calls="EPERM")(lambda aim: os.nice(-5))
