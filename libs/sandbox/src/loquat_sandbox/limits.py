"""How much of the machine one worker may have."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from typing import Final

import msgspec

_SLACK: Final = 64 << 20
"""Addresses beyond what the zygote has and the worker may fill: shared mappings, stacks of threads (1 MiB each)."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one worker: bytes of private memory, of one file, of its /tmp; open descriptors; processes and threads (where its user is its own)."""

    memory: int = 256 << 20
    file_size: int = 16 << 20
    files: int = 128
    processes: int = 64
    temporary: int = 16 << 20
    temporary_files: int = 1024


def apply(limits: Limits, *, addresses: int | None, own_user: bool) -> None:
    """Sets the limits of this process for good. `addresses`: bytes of address space it has already, if that is to be bounded too."""
    wanted = {
        resource.RLIMIT_DATA: limits.memory,
        resource.RLIMIT_FSIZE: limits.file_size,
        resource.RLIMIT_NOFILE: limits.files,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    if sys.platform == "linux":
        wanted[resource.RLIMIT_MSGQUEUE] = 0
        if addresses is not None:
            wanted[resource.RLIMIT_AS] = addresses + limits.memory + _SLACK
        if own_user:  # the kernel counts by user, over the whole machine
            wanted[resource.RLIMIT_NPROC] = limits.processes
    for kind, most in wanted.items():
        resource.setrlimit(kind, (most, most))


def allow_descriptors() -> None:
    """As many open files as this process may have: a runner holds half a dozen for each worker."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS names a limit that it does not take
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def addresses_now() -> int:
    """Bytes of address space of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  (pathlib would read it no better)
        return int(file.read().split()[0]) * resource.getpagesize()
