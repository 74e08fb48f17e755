"""What a wheel brings, and where it goes in a layer: decided from its list of contents, before any of it is unpacked."""

from __future__ import annotations

import re
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

_LONGEST: Final = 255  # bytes of one name (NAME_MAX)
_DEEPEST: Final = 40
_ODD: Final = re.compile("[\0-\x1f\\\\]")
_OF_MODULES: Final = frozenset({"purelib", "platlib"})
_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class LayerLimits:
    """Of one layer: bytes and files of all packages together, and seconds until it is there."""

    unpacked: int = 200 << 20
    files: int = 20_000
    seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive: `mode` is that of stat, or 0 where none is noted."""

    path: str
    size: int
    mode: int = 0


class WheelRefused(Exception):
    """A wheel cannot be installed here; the text says why, to its bot's owner."""


def placed(package: str, members: Iterable[Member], own: Collection[str]) -> Iterator[tuple[Member, str]]:
    """Each file that goes into the layer, and its path there.

    What serves no import is left out: scripts, headers, data beside the modules, byte code. `own`: names of modules that are the platform's.

    Raises:
        WheelRefused: a path that leads out, a link, a file that would run by itself, a module of the platform's.
    """
    for member in members:
        target = _target(package, member)
        if target is None:
            continue
        if len(target.parts) == 1 and target.suffix == ".pth":
            raise WheelRefused(f"{package} brings {target.name[:_SHOWN]}: code that every interpreter would run at its start is not taken")
        module = target.parts[0].partition(".")[0]
        if module in own and not target.parts[0].endswith((".dist-info", ".data")):
            raise WheelRefused(f"{package} brings a module {module!r}, which is the platform's own")
        yield member, str(target)


def _target(package: str, member: Member) -> PurePosixPath | None:
    if _leads_out(member.path):
        raise WheelRefused(f"{package} holds {member.path[:_SHOWN]!r}: a path that leads out of where it is unpacked, or cannot be made")
    if member.path.endswith("/"):
        return None
    if stat.S_IFMT(member.mode) not in {0, stat.S_IFREG}:
        raise WheelRefused(f"{package} holds {member.path[:_SHOWN]!r}, which is a link or a device and no file")
    path = PurePosixPath(member.path)
    if "__pycache__" in path.parts:
        return None
    if path.parts[0].endswith(".data"):
        return PurePosixPath(*path.parts[2:]) if len(path.parts) > 2 and path.parts[1] in _OF_MODULES else None  # noqa: PLR2004
    return path


def _leads_out(path: str) -> bool:
    parts = path.split("/")
    return (
        not path
        or path.startswith("/")
        or _ODD.search(path) is not None
        or any(part in {".", ".."} or len(part.encode(errors="replace")) > _LONGEST for part in parts)
        or "" in parts[:-1]
        or len(parts) > _DEEPEST
        or any("\ud800" <= c <= "\udfff" for c in path)
    )
