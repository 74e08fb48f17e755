"""Landlock: a process gives up all files but some, all TCP but some ports, and signals to those outside. The second fence behind namespaces, the first without."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from loquat_sandbox import kernel

# linux/landlock.h. What an ABI does not know it would refuse: each asks for what it has.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_BASE: Final = (1 << 13) - 1
_WITH_REFER, _WITH_TRUNCATE, _WITH_IOCTL, _WITH_SCOPES = 2, 3, 5, 6  # the ABIs that brought them
_BIND_TCP, _CONNECT_TCP = 1, 2  # ABI 4
_SCOPES: Final = 1 | 2  # ABI 6: abstract Unix sockets, signals
_OF_A_FILE: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_RULE_PATH, _RULE_PORT = 1, 2
_VERSION: Final = 1
TCP: Final = 4
"""The first ABI that judges TCP connections."""


def abi() -> int:
    """The kernel's; 0: none."""
    try:
        return kernel.call("landlock_create_ruleset", None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION))
    except OSError:
        return 0


def restrict(*, read: Iterable[str], write: Iterable[str], devices: Iterable[str], ports: Iterable[int] | None) -> None:
    """Leaves to this process and its children: files below `read`, below `write`, devices to read and write, connections to `ports` (None: to all).

    A path that is not there allows nothing. Needs PR_SET_NO_NEW_PRIVS.
    """
    version = abi()
    files = (
        _BASE
        | (_REFER if version >= _WITH_REFER else 0)
        | (_TRUNCATE if version >= _WITH_TRUNCATE else 0)
        | (_IOCTL_DEV if version >= _WITH_IOCTL else 0)
    )
    network = _BIND_TCP | _CONNECT_TCP if ports is not None else 0
    wanted = struct.pack("QQQ", files, network, _SCOPES)[: 24 if version >= _WITH_SCOPES else 16 if version >= TCP else 8]
    rules = kernel.call(
        "landlock_create_ruleset", ctypes.create_string_buffer(wanted, len(wanted)), ctypes.c_size_t(len(wanted)), ctypes.c_uint(0)
    )
    try:
        for paths, access in (
            (read, _EXECUTE | _READ_FILE | _READ_DIR),
            (write, files & ~(_EXECUTE | _IOCTL_DEV)),
            (devices, _READ_FILE | _WRITE_FILE),
        ):
            for path in paths:
                with suppress(FileNotFoundError):
                    _allow(rules, path, access)
        if version >= TCP:
            for port in ports or ():
                _add(rules, _RULE_PORT, struct.pack("QQ", _CONNECT_TCP, port))
        kernel.call("landlock_restrict_self", ctypes.c_int(rules), ctypes.c_uint(0))
    finally:
        os.close(rules)


def _allow(rules: int, path: str, access: int) -> None:
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            access &= _OF_A_FILE
        _add(rules, _RULE_PATH, struct.pack("<Qi", access, opened))
    finally:
        os.close(opened)


def _add(rules: int, kind: int, rule: bytes) -> None:
    kernel.call(
        "landlock_add_rule", ctypes.c_int(rules), ctypes.c_int(kind), ctypes.create_string_buffer(rule, len(rule)), ctypes.c_uint(0)
    )
