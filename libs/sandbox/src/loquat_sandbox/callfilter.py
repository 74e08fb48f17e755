"""Which calls of the kernel a confined process may make: a list of what is allowed, everything else fails with EPERM.

Not on the list, among others: execve, fork, ptrace, process_vm_*, pidfd_*, kill, unshare, setns, mount, set*id, capset, bpf, perf_event_open,
userfaultfd, io_uring_*, keys, memfd_*, System V IPC, message queues, setrlimit, setpriority, sched_set*, bind, listen, accept, splice. Nor
mincore, preadv2 and fadvise64: they tell which pages of files that all workers share are in memory, and throw them out, which is a way to
signal to a neighbour and to watch him. Nor statfs and sysinfo, which tell how full the whole machine is.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final

from loquat_sandbox.architectures import Architecture
from loquat_sandbox.bpf import ALLOW, ARCHITECTURE, IF_AT_LEAST, IF_EQUAL, KILL, LOAD, NUMBER, RETURN, Step, Test, any_of, packed, refuse

_ALLOWED: Final = """
read write readv writev pread64 pwrite64 preadv pwritev lseek close close_range dup dup2 dup3 flock fsync fdatasync ftruncate truncate
open openat openat2 creat access faccessat faccessat2 stat lstat fstat newfstatat statx readlink readlinkat getdents getdents64 getcwd
chdir fchdir mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat umask mmap munmap mremap mprotect
madvise msync brk rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait rt_sigpending rt_sigsuspend sigaltstack futex futex_waitv
set_robust_list rseq set_tid_address membarrier arch_prctl restart_syscall sched_yield getcpu poll ppoll select pselect6 epoll_create
epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2 timerfd_create timerfd_settime timerfd_gettime nanosleep
gettimeofday time times setitimer getitimer alarm pause getrandom uname getrusage getrlimit getpid getppid gettid getuid geteuid getgid
getegid getresuid getresgid getgroups getpgrp pipe pipe2 sendfile copy_file_range connect getsockname getpeername recvfrom recvmsg
recvmmsg shutdown exit exit_group fallocate
"""
_METADATA: Final = ["chmod", "fchmod", "fchmodat", "fchmodat2", "utimensat"]
"""Landlock does not judge these: without a root of its own a process would reach others' files with them."""

# The numbers below are of the uapi headers; sockets' options are the same on both processors.
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_STREAM, _KIND_OF_SOCKET = 1, 0xF
_TCP: Final = (0, 6)  # the protocol that a stream means, named or not: MPTCP (262) and SCTP walk past Landlock's rules
_FASTOPEN: Final = 0x20000000  # connects without the connect() that Landlock judges
_THREAD: Final = 0x10000
_NAMESPACES: Final = 0x7E020000
_SOCKET_OPTIONS: Final = (2, 9, 13, 15, 20, 21, 66, 67)  # REUSEADDR KEEPALIVE LINGER REUSEPORT *TIMEO; no SNDBUF, RCVBUF, MARK
_TCP_OPTIONS: Final = (1, 4, 5, 6, 12, 18)  # NODELAY KEEPIDLE KEEPINTVL KEEPCNT QUICKACK USER_TIMEOUT; no ULP
_IPV6_OPTIONS: Final = (26,)  # V6ONLY
_SOCKET_FACTS: Final = (3, 4, 7, 8, 30, 38, 39)  # TYPE ERROR SNDBUF RCVBUF ACCEPTCONN PROTOCOL DOMAIN
"""No PEERCRED, PEERGROUPS, PEERPIDFD: the control socket's other end is the runner."""
_TCP_FACTS: Final = (2, 11)  # MAXSEG INFO
_CLOCKS: Final = tuple(range(12))  # CLOCK_REALTIME to CLOCK_TAI
_OF_ITSELF: Final = ("sched_getaffinity", "sched_getparam", "sched_getscheduler", "getsid", "getpgid")  # 0: the caller
_FCNTL: Final = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030)  # DUPFD GETFD SETFD GETFL SETFL locks; no SETOWN, SETPIPE_SZ, ADD_SEALS, NOTIFY
_IOCTL: Final = (0x5421, 0x5450, 0x5451, 0x541B, 0x5401, 0x5413)  # FIONBIO FIONCLEX FIOCLEX FIONREAD TCGETS TIOCGWINSZ
_PRCTL: Final = (15, 16)  # the thread's name

Ways = Sequence[Sequence[Test]]


def _no_fast_open(argument: int) -> Ways:
    return [[Test(argument, (0,), mask=_FASTOPEN)]]


def _conditional(*, alone: bool) -> dict[str, Ways]:
    """Calls that are allowed with certain arguments only: each way is a list of tests that must all hold."""
    rules: dict[str, Ways] = {
        "sendto": _no_fast_open(3),
        "sendmsg": _no_fast_open(2),
        "sendmmsg": _no_fast_open(3),
        "fcntl": [[Test(1, _FCNTL)]],
        "setsockopt": [
            [Test(1, (1,)), Test(2, _SOCKET_OPTIONS)],
            [Test(1, (6,)), Test(2, _TCP_OPTIONS)],
            [Test(1, (41,)), Test(2, _IPV6_OPTIONS)],
        ],
        "socket": [[Test(0, (_AF_INET, _AF_INET6)), Test(1, (_STREAM,), mask=_KIND_OF_SOCKET), Test(2, _TCP)]],
        # Half of a datagram pair could be aimed at any socket of the machine that has a path, and Landlock does not judge that.
        "socketpair": [[Test(0, (_AF_UNIX,)), Test(1, (_STREAM,), mask=_KIND_OF_SOCKET)]],
        "getsockopt": [
            [Test(1, (1,)), Test(2, (*_SOCKET_OPTIONS, *_SOCKET_FACTS))],
            [Test(1, (6,)), Test(2, (*_TCP_OPTIONS, *_TCP_FACTS))],
            [Test(1, (41,)), Test(2, _IPV6_OPTIONS)],
        ],
        # Negative clocks are those of other processes: how busy a neighbour is, to the nanosecond.
        "clock_gettime": [[Test(0, _CLOCKS)]],
        "clock_getres": [[Test(0, _CLOCKS)]],
        "clock_nanosleep": [[Test(0, _CLOCKS)]],
        **{name: [[Test(0, (0,))]] for name in _OF_ITSELF},
        "getpriority": [[Test(0, (0,)), Test(1, (0,))]],
        "clone": [[Test(0, (_THREAD,), mask=_THREAD | _NAMESPACES)]],
        "ioctl": [[Test(1, _IOCTL)]],
        "prctl": [[Test(0, _PRCTL)]],
        "prlimit64": [[Test(0, (0,)), Test(2, (0,), whole=True)]],  # of itself, and reading only
    }
    if alone:  # a process that is number 1 of its namespace may signal its own threads: abort()
        rules["tgkill"] = [[Test(0, (1,))]]
    return rules


def program(architecture: Architecture, *, own_root: bool) -> bytes:
    """The filter. `own_root`: the process has a root directory and a pid namespace of its own."""
    numbers = architecture.numbers
    steps = [Step(LOAD, ARCHITECTURE), Step(IF_EQUAL, architecture.audit, yes=1), Step(RETURN, KILL), Step(LOAD, NUMBER)]
    if architecture.foreign is not None:
        steps += [Step(IF_AT_LEAST, architecture.foreign, no=1), Step(RETURN, KILL)]
    # The kernel remembers which numbers are allowed whatever the arguments; only the others run the program each time, so they come first.
    for call, ways in _conditional(alone=own_root).items():
        block = [*any_of(ways, ALLOW), Step(RETURN, refuse(errno.EPERM))]
        steps += [Step(IF_EQUAL, numbers[call], no=len(block)), *block]
    # Its flags lie behind a pointer, where no filter can look: the C library falls back to clone.
    steps += [Step(IF_EQUAL, numbers["clone3"], no=1), Step(RETURN, refuse(errno.ENOSYS))]
    for call in (*_ALLOWED.split(), *(_METADATA if own_root else ())):
        if call in numbers:
            steps += [Step(IF_EQUAL, numbers[call], no=1), Step(RETURN, ALLOW)]
    return packed([*steps, Step(RETURN, refuse(errno.EPERM))])
