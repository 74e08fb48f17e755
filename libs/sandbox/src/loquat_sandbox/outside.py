"""The walls around a process as they look from outside: each by itself, whatever the others hide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from loquat_sandbox import network
from loquat_sandbox.confined import Confined
from loquat_sandbox.levels import Level
from loquat_sandbox.limits import Limits

_FILTER: Final = "2"  # SECCOMP_MODE_FILTER
_NONE: Final = "0" * 16


def missing(worker: Confined, limits: Limits, user: int | None, *, own_door: int) -> list[str]:
    """What does not stand. `own_door`: a number of our own network's namespace."""
    return [*_rights(worker, user), *_limits(worker, limits), *(_spaces(worker, own_door) if worker.level >= Level.CONTAINED else ())]


def _rights(worker: Confined, user: int | None) -> Iterator[str]:
    status = _table(Path(f"/proc/{worker.pid}/status").read_text(encoding="ascii"))
    for name, wanted in {"Seccomp": _FILTER, "NoNewPrivs": "1", "CapEff": _NONE, "CapPrm": _NONE, "CapInh": _NONE, "CapBnd": _NONE}.items():
        if status.get(name) != wanted and not (name == "CapBnd" and user is None and worker.level < Level.CONTAINED):
            yield f"{name} is {status.get(name)}"
    if user is not None and set(status.get("Uid", "").split()) != {str(user)}:
        yield f"Uid is {status.get('Uid')}, not {user}"
    if worker.level >= Level.CONTAINED and status.get("NSpid", "").split()[-1:] != ["1"]:
        yield f"NSpid is {status.get('NSpid')}"
    if user != 0 and Path(f"/proc/{worker.pid}/status").stat().st_uid != 0:  # the kernel gives it to root once it is not dumpable
        yield "it can be read by others of its user"


def _limits(worker: Confined, limits: Limits) -> Iterator[str]:
    text = Path(f"/proc/{worker.pid}/limits").read_text(encoding="ascii")
    for name, wanted in {
        "Max data size": limits.memory,
        "Max file size": limits.file_size,
        "Max open files": limits.files,
        "Max core file size": 0,
        "Max msgqueue size": 0,
        "Max locked memory": 0,
    }.items():
        line = next((line for line in text.splitlines() if line.startswith(name)), "")
        if line.removeprefix(name).split()[:2] != [str(wanted)] * 2:
            yield f"{name} is not {wanted}"
    if "Max address space         unlimited" in text:
        yield "Max address space is unlimited"


def _spaces(worker: Confined, own_door: int) -> Iterator[str]:
    """Of its root: mounts are read-only but /tmp, and nothing of the kernel's own file systems is there."""
    if network.namespace_of(worker.postgres) == own_door:
        yield "it is in our network"
    for line in Path(f"/proc/{worker.pid}/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        where, options, kind = left.split()[4], left.split()[5].split(","), right.split()[0]
        if "ro" not in options and where != "/tmp" and not where.startswith("/dev/"):  # noqa: S108  (its own)
            yield f"{where} can be written to"
        if kind in {"proc", "sysfs", "cgroup", "cgroup2"}:
            yield f"{where} shows {kind}"


def _table(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
