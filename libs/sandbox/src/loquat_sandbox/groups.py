"""Control groups: a hard ceiling for all that one worker makes the kernel hold, where this process may make groups."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

from loquat_sandbox.limits import Limits

_ROOT: Final = Path("/sys/fs/cgroup")
_PREFIX: Final = "loquat-"
_KERNEL: Final = 32 << 20
"""Bytes beyond a worker's own: page tables, buffers of sockets, what it reads from disk."""
_ENTRY: Final = {"v1": "tasks", "v2": "cgroup.procs"}
"""For one's only thread the first is the same, and does not wait until every processor has been through the scheduler (5 to 15 ms). Version 2 has no such file."""


class Group:
    """Of one worker."""

    def __init__(self, folders: list[Path], entry: str, events: Path, late: list[Path]) -> None:
        self._folders, self._events, self._late = folders, events, late
        self.entries: tuple[int, ...] = tuple(os.open(f / entry, os.O_WRONLY | os.O_CLOEXEC) for f in folders)
        """What a process of one thread writes 0 to, to enter."""

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel ended a process of it for its memory."""
        with suppress(OSError):
            words = self._events.read_text(encoding="ascii").split()
            return int(words[words.index("oom_kill") + 1]) > 0
        return False

    def entered(self) -> None:
        """Nobody enters any more."""
        for entry in self.entries:
            os.close(entry)
        self.entries = ()

    def remove(self) -> None:
        """Once it is empty. What the kernel does not let go yet (its zygote was killed, and the worker is about to end) goes when the next one is made."""
        self.entered()
        self._late += [folder for folder in self._folders if not _gone(folder)]


class Groups:
    """Makes them below our own group. `kind` is v1 or v2."""

    def __init__(self, kind: str, parents: Mapping[str, Path]) -> None:
        self.kind, self._parents, self._numbers = kind, parents, count(1)
        self._late = list[Path]()
        self._own = secrets.token_hex(4)  # another sandbox of this process counts from 1, too

    @classmethod
    def find(cls) -> Groups | str:
        """What this machine lets us make; else what is missing."""
        own = dict[str, str]()
        for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
            _, controllers, path = line.split(":", 2)
            own.update(dict.fromkeys(controllers.split(","), path))
        reasons: list[str] = []
        for kind, parents in (("v2", _second_version(own)), ("v1", _first_version(own))):
            if isinstance(parents, str):
                reasons.append(f"{kind}: {parents}")
                continue
            made = cls(kind, parents)
            try:
                made.make(Limits()).remove()
            except OSError as error:
                reasons.append(f"{kind}: {error}")
                continue
            made.sweep()
            return made
        return "; ".join(reasons)

    def sweep(self) -> None:
        """Takes away empty groups that a runner left which was killed."""
        for parent in set(self._parents.values()):
            for folder in parent.glob(f"{_PREFIX}*"):
                pid, _, rest = folder.name.removeprefix(_PREFIX).partition("-")
                if rest.partition("-")[0] != _since(pid):
                    with suppress(OSError):
                        folder.rmdir()

    def make(self, limits: Limits) -> Group:
        """One group with its limits.

        Raises:
            OSError: the kernel refuses.
        """
        self._late[:] = [folder for folder in self._late if not _gone(folder)]
        name = f"{_PREFIX}{os.getpid()}-{_since('self')}-{self._own}-{next(self._numbers)}"
        memory = limits.memory + limits.temporary + _KERNEL
        folders = list(dict.fromkeys(parent / name for parent in self._parents.values()))
        holder = self._parents["memory"] / name
        try:
            for folder in folders:
                folder.mkdir()
            if self.kind == "v2":
                _write(holder / "memory.max", memory)
                _write(holder / "memory.oom.group", 1)
                with suppress(FileNotFoundError):  # a kernel without swap
                    _write(holder / "memory.swap.max", 0)
                events = holder / "memory.events"
            else:
                _write(holder / "memory.limit_in_bytes", memory)
                with suppress(FileNotFoundError):
                    _write(holder / "memory.memsw.limit_in_bytes", memory)
                events = holder / "memory.oom_control"
            _write(self._parents["pids"] / name / "pids.max", limits.processes)
            return Group(folders, _ENTRY[self.kind], events, self._late)
        except OSError:
            for folder in folders:
                with suppress(OSError):
                    folder.rmdir()
            raise


def _gone(folder: Path) -> bool:
    """Whether a group was taken away, now or before."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _since(pid: str) -> str:
    """When a process began, in ticks since the machine's start; "" when it has ended. A number alone is given again: in a container always the same one."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _write(file: Path, value: int) -> None:
    file.write_text(str(value), encoding="ascii")


def _first_version(own: Mapping[str, str]) -> Mapping[str, Path] | str:
    for controller in ("memory", "pids"):
        if controller not in own:
            return f"no controller {controller}"
    return {c: _ROOT / c / own[c].lstrip("/") for c in ("memory", "pids")}


def _second_version(own: Mapping[str, str]) -> Mapping[str, Path] | str:
    """A group that has processes can have no children with controllers: ours must be a leaf called `runner` of a group that was delegated."""
    path = own.get("")
    if path is None or not (_ROOT / "cgroup.controllers").exists():
        return "not mounted"
    leaf = _ROOT / path.lstrip("/")
    if leaf.name != "runner":
        return "our own group is not the leaf `runner` of a delegated one (systemd: Delegate=yes, DelegateSubgroup=runner)"
    try:
        given = set((leaf.parent / "cgroup.subtree_control").read_text(encoding="ascii").split())
        if not {"memory", "pids"} <= given:
            _write_text(leaf.parent / "cgroup.subtree_control", "+memory +pids")
    except OSError as error:
        return str(error)
    return dict.fromkeys(("memory", "pids"), leaf.parent)


def _write_text(file: Path, text: str) -> None:
    file.write_text(text, encoding="ascii")
