"""Calls of Linux that Python does not have, by ctypes: one function each, errors as `OSError` with the call's name."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

from loquat_sandbox.architectures import here

NEWNS: Final = 0x20000
NEWUSER: Final = 0x10000000
NEWPID: Final = 0x20000000
NEWNET: Final = 0x40000000

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_MOVE: Final = 8192
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
_MNT_DETACH: Final = 2
_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000
_MOUNT_ATTR: Final = struct.Struct("QQQQ")  # set, clear, propagation, user namespace
_READ_ONLY: Final = 1 | 2 | 4  # MOUNT_ATTR_RDONLY | NOSUID | NODEV

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITIES: Final = 41  # the highest is CAP_CHECKPOINT_RESTORE, 40; dropping one that is not there fails harmlessly
_CAPSET_VERSION_3: Final = 0x20080522
_SECCOMP_SET_MODE_FILTER, _SECCOMP_TSYNC = 1, 1
_M_ARENA_MAX: Final = -8

_libc: Final = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def call(name: str, *arguments: object) -> int:
    """A call by its name, with arguments as ctypes takes them."""
    architecture = here()
    if architecture is None:
        raise OSError(f"{name}: the numbers of this processor's calls are not known")
    return _checked(_libc.syscall(ctypes.c_long(architecture[name]), *arguments), name)


def unshare(flags: int) -> None:
    """Leaves namespaces for new ones; `NEWPID` holds for children only."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Enters a namespace."""
    _checked(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def prctl(option: int, *arguments: int) -> int:
    """An operation on this process; what it answers."""
    padded = [*arguments, 0, 0, 0, 0][:4]
    return _checked(_libc.prctl(ctypes.c_int(option), *(ctypes.c_ulong(a) for a in padded)), f"prctl {option}")


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, options: str | None = None) -> None:
    """Mounts, or changes what is mounted, by the flags."""
    names = [None if name is None else os.fsencode(name) for name in (source, target, kind, options)]
    _checked(_libc.mount(names[0], names[1], names[2], ctypes.c_ulong(flags), names[3]), f"mount {target}")


def detach(target: str) -> None:
    """Takes a mount and all below it out of sight at once."""
    _checked(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"umount {target}")


def bind_read_only(source: str, target: str) -> None:
    """Shows `source` at `target`, read-only with everything mounted below it: a plain remount would not reach those."""
    mount(source, target, None, MS_BIND | MS_REC)
    attributes = ctypes.create_string_buffer(_MOUNT_ATTR.pack(_READ_ONLY, 0, MS_PRIVATE, 0), _MOUNT_ATTR.size)
    call(
        "mount_setattr",
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(target),
        ctypes.c_uint(_AT_RECURSIVE),
        attributes,
        ctypes.c_size_t(_MOUNT_ATTR.size),
    )


def change_root(new: str) -> None:
    """Makes `new`, a mount, the root. Where a pod's filter refuses pivot_root: MS_MOVE and chroot; the old root has no name then."""
    os.chdir(new)
    try:
        call("pivot_root", b".", b".")
    except PermissionError:
        mount(".", "/", None, MS_MOVE)
        os.chroot(".")
    else:
        detach(".")
    os.chdir("/")


def drop_bounding_set() -> None:
    """No capability may ever be gained again. While CAP_SETPCAP is there: who lacks it has nothing to lose."""
    for capability in range(_CAPABILITIES):
        _libc.prctl(ctypes.c_int(PR_CAPBSET_DROP), ctypes.c_ulong(capability), *[ctypes.c_ulong(0)] * 3)


def drop_capabilities() -> None:
    """The ambient, permitted, effective and inheritable sets."""
    _libc.prctl(ctypes.c_int(PR_CAP_AMBIENT), ctypes.c_ulong(_PR_CAP_AMBIENT_CLEAR_ALL), *[ctypes.c_ulong(0)] * 3)
    header = ctypes.create_string_buffer(struct.pack("Ii", _CAPSET_VERSION_3, 0))
    call("capset", header, ctypes.create_string_buffer(24))


def die_with(parent: int | None) -> None:
    """SIGKILL when the thread that forked us ends. After any change of user: those clear it. `parent`: its number, where it can be seen.

    Raises:
        ProcessLookupError: the parent is gone already.
    """
    prctl(PR_SET_PDEATHSIG, 9)
    if parent is not None and os.getppid() != parent:
        raise ProcessLookupError("the parent has ended")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def filter_calls(program: bytes) -> None:
    """Installs a seccomp filter on all threads; it cannot be taken off. Needs PR_SET_NO_NEW_PRIVS."""
    buffer = ctypes.create_string_buffer(program, len(program))
    wanted = _Program(len(program) // 8, ctypes.addressof(buffer))
    call("seccomp", ctypes.c_uint(_SECCOMP_SET_MODE_FILTER), ctypes.c_uint(_SECCOMP_TSYNC), ctypes.byref(wanted))


def few_arenas() -> None:
    """The C library reserves 64 MiB of addresses for each thread's heap: a limit on addresses would count them."""
    mallopt = getattr(_libc, "mallopt", None)  # musl has none, and no such heaps
    if mallopt is not None:
        mallopt(ctypes.c_int(_M_ARENA_MAX), ctypes.c_int(2))
