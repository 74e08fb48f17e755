"""A worker that tries what a hostile bot would try. Nothing here succeeds where the walls stand; what does is said by its name."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from loquat_sandbox import kernel
from loquat_sandbox.levels import Level

_DENIED: Final = frozenset({errno.EPERM, errno.EACCES})
_NOT_THERE: Final = _DENIED | {errno.ENOENT, errno.EROFS}
_UNREACHABLE: Final = _DENIED | {errno.ECONNREFUSED, errno.ENETUNREACH}
_HIGHEST_DESCRIPTOR: Final = 4096
_AF_VSOCK, _AF_ALG, _AF_NETLINK, _AF_PACKET = 40, 38, 16, 17
_MPTCP, _SCTP = 262, 132
_MSG_FASTOPEN: Final = 0x20000000
_CONTROL: Final = 3  # the socket on which it is asked; see `layers`
_LIMIT: Final = 1.0  # seconds that an attempt to connect may take


class Bait(msgspec.Struct, frozen=True):
    """What the runner lays out: a file that everybody may read, a server on its loopback, an abstract socket, and itself."""

    level: Level
    file: str
    port: int
    abstract: str
    pid: int
    doors: tuple[int, int]


class Found(msgspec.Struct, frozen=True):
    """What got through, and what an honest bot could not do."""

    through: list[str]
    broken: list[str]


def serve(descriptor: int) -> None:
    """Reads the bait from the control socket, tries everything, answers, ends."""
    with socket.socket(fileno=descriptor) as runner:
        runner.setblocking(True)
        bait = msgspec.msgpack.decode(runner.recv(1 << 16), type=Bait)
        found = Found([name for name, act, errors in _acts(bait) if _succeeds(act, errors)], list(_broken(bait)))
        runner.sendall(msgspec.msgpack.encode(found))


def _succeeds(act: Callable[[], object], refusals: frozenset[int]) -> bool:
    """Another error than a refusal counts as success: the kernel got as far as looking at the arguments."""
    try:
        act()
    except OSError as error:
        return error.errno not in refusals
    return True


Act = tuple[str, Callable[[], object], frozenset[int]]


def _acts(bait: Bait) -> list[Act]:
    made = [*_files(bait), *_network(bait), *_processes(bait), *_calls()]
    made.append(("descriptors", _foreign_descriptors, _DENIED))
    return made


def _files(bait: Bait) -> list[Act]:
    def write(path: str) -> Callable[[], object]:
        return lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))

    own = os.getcwd()  # noqa: PTH109
    return [
        ("read a file of the runner's", lambda: Path(bait.file).read_bytes(), _NOT_THERE),
        ("list the runner's folder", lambda: os.listdir(Path(bait.file).parent), _NOT_THERE),  # noqa: PTH208
        ("read /proc/self/environ", lambda: Path("/proc/self/environ").read_bytes(), _NOT_THERE),
        ("list /sys", lambda: os.listdir("/sys"), _NOT_THERE),  # noqa: PTH208
        ("write to /dev/shm", write("/dev/shm/loquat-canary"), _NOT_THERE),  # noqa: S108
        ("write to its own code", write(f"{own}/canary"), _NOT_THERE),
        ("write to the interpreter", write(f"{os.path.dirname(os.__file__)}/canary"), _NOT_THERE),  # noqa: PTH120
        ("climb out of its folder", lambda: Path(f"{own}/../../../../..{bait.file}").read_bytes(), _NOT_THERE),
    ]


def _network(bait: Bait) -> list[Act]:
    def connect(family: int, address: tuple[str, int] | str, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> Callable[[], None]:
        def act() -> None:
            with socket.socket(family, kind, protocol) as one:
                one.settimeout(_LIMIT)
                one.connect(address)

        return act

    def make(family: int, kind: int, protocol: int = 0) -> Callable[[], None]:
        return lambda: socket.socket(family, kind, protocol).close()

    def fast_open() -> None:
        with socket.socket() as one:
            one.settimeout(_LIMIT)
            one.sendto(b"x", _MSG_FASTOPEN, ("127.0.0.1", bait.port))

    def listen() -> None:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            one.listen()

    return [
        ("connect to the runner's loopback", connect(socket.AF_INET, ("127.0.0.1", bait.port)), _UNREACHABLE),
        ("connect to the metadata address", connect(socket.AF_INET, ("169.254.169.254", 80)), _UNREACHABLE),
        ("connect to an abstract socket", connect(socket.AF_UNIX, f"\0{bait.abstract}"), _DENIED),
        ("connect by fast open", fast_open, _DENIED),
        ("MPTCP", make(socket.AF_INET, socket.SOCK_STREAM, _MPTCP), _DENIED),
        ("SCTP", make(socket.AF_INET, socket.SOCK_STREAM, _SCTP), _DENIED),
        ("half of a datagram pair", lambda: [s.close() for s in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)], _DENIED),
        ("a handle of the runner", _peer, _DENIED),
        ("UDP", make(socket.AF_INET, socket.SOCK_DGRAM), _DENIED),
        ("netlink", make(_AF_NETLINK, socket.SOCK_RAW), _DENIED),
        ("packet sockets", make(_AF_PACKET, socket.SOCK_RAW), _DENIED),
        ("vsock", make(_AF_VSOCK, socket.SOCK_STREAM), _DENIED),
        ("kernel crypto sockets", make(_AF_ALG, socket.SOCK_SEQPACKET), _DENIED),
        ("listen", listen, _DENIED),
    ]


def _peer() -> None:
    """SO_PEERPIDFD, 77, of the control socket."""
    with socket.socket(fileno=os.dup(_CONTROL)) as control:
        os.close(int.from_bytes(control.getsockopt(socket.SOL_SOCKET, 77, 4), "little"))


def _watch(pid: int) -> None:
    """Another process's clock."""
    kernel.call("clock_gettime", ctypes.c_int((~pid << 3) | 2), ctypes.create_string_buffer(16))


def _processes(bait: Bait) -> list[Act]:
    zero = ctypes.c_int(0)
    return [
        ("fork", _fork, _DENIED),
        ("exec", lambda: os.execv("/bin/true", ["true"]), _DENIED),  # noqa: S606
        ("signal the runner", lambda: os.kill(bait.pid, 0), _DENIED),
        ("watch the runner's clock", lambda: _watch(bait.pid), _DENIED),
        ("open the runner", lambda: os.pidfd_open(bait.pid), _DENIED),
        ("trace the runner", lambda: kernel.call("ptrace", 16, ctypes.c_long(bait.pid), None, None), _DENIED),
        ("read the runner's memory", lambda: kernel.call("process_vm_readv", ctypes.c_int(bait.pid), None, 0, None, 0, 0), _DENIED),
        (
            "raise a limit",
            lambda: kernel.call("prlimit64", zero, ctypes.c_int(resource.RLIMIT_NOFILE), ctypes.create_string_buffer(16), None),
            _DENIED,
        ),
        ("real time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)), _DENIED),
    ]


def _calls() -> list[Act]:
    """Calls that nobody confined needs, with arguments that do no harm if they are let through."""
    zero = ctypes.c_long(0)
    bad = ctypes.c_long(-1)
    plain: dict[str, tuple[object, ...]] = {
        "unshare": (ctypes.c_long(kernel.NEWUSER),),
        "setns": (bad, zero),
        "mount": (None, None, None, zero, None),
        "pivot_root": (None, None),
        "chroot": (b"/",),
        "setuid": (zero,),
        "setresuid": (zero, zero, zero),
        "setgroups": (zero, None),
        "capset": (None, None),
        "bpf": (bad, None, zero),
        "perf_event_open": (None, zero, bad, bad, zero),
        "userfaultfd": (zero,),
        "io_uring_setup": (zero, None),
        "keyctl": (bad,),
        "add_key": (None, None, None, zero, zero),
        "memfd_create": (b"x", zero),
        "shmget": (zero, ctypes.c_long(4096), ctypes.c_long(0o1600)),
        "msgget": (zero, ctypes.c_long(0o1600)),
        "semget": (zero, ctypes.c_long(1), ctypes.c_long(0o1600)),
        "personality": (ctypes.c_long(0xFFFFFFFF),),
        "kcmp": (zero, zero, bad, zero, zero),
        "name_to_handle_at": (bad, None, None, None, zero),
        "mount_setattr": (bad, None, zero, None, zero),
        "open_tree": (bad, None, zero),
        "fsopen": (None, zero),
        "seccomp": (bad, zero, None),
        "vmsplice": (bad, None, zero, zero),
        "syslog": (ctypes.c_long(10), None, zero),
        "setxattr": (None, None, None, zero, zero),
        "mincore": (None, zero, None),
        "preadv2": (bad, None, zero, zero, zero, zero),
        "fadvise64": (bad, zero, zero, zero),
        "mknodat": (bad, None, zero, zero),
    }

    def trying(name: str, arguments: tuple[object, ...]) -> Callable[[], int]:
        return lambda: kernel.call(name, *arguments)

    return [(name, trying(name, arguments), _DENIED) for name, arguments in plain.items()]


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _foreign_descriptors() -> None:
    """Beside the three standard ones and the socket on which it answers."""
    for descriptor in range(4, _HIGHEST_DESCRIPTOR):
        try:
            os.fstat(descriptor)
        except OSError:
            continue
        return
    raise PermissionError(errno.EPERM, "none")


def _broken(bait: Bait) -> list[str]:
    """What honest bots need: modules, threads, the doors, from level 2 on a place for files; and an end to what they may take."""
    wrong: list[str] = []
    needs: dict[str, Callable[[], object]] = {
        "import a module": lambda: __import__("colorsys"),
        "start a thread": _thread,
        "read /dev/urandom": lambda: os.close(os.open("/dev/urandom", os.O_RDONLY)),
    }
    for port in bait.doors:
        needs[f"connect to its door {port}"] = lambda p=port: socket.create_connection(("127.0.0.1", p), _LIMIT).close()
    if bait.level >= Level.CONTAINED:
        needs["write a temporary file"] = lambda: Path("/tmp/canary").write_text("x", encoding="ascii")  # noqa: S108
    for name, need in needs.items():
        try:
            need()
        except (OSError, ImportError, RuntimeError) as error:
            wrong.append(f"{name}: {error}")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != 0 or resource.getrlimit(resource.RLIMIT_DATA)[1] == resource.RLIM_INFINITY:
        wrong.append("its limits are not set")
    return wrong


def _thread() -> None:
    one = threading.Thread(target=signal.getsignal, args=(signal.SIGTERM,))
    one.start()
    one.join()
