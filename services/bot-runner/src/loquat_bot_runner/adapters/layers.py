"""What bots need besides the platform's packages: a folder per project and lock, installed once on this machine and read-only for bots."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from loquat_common.logs import get_logger

from loquat_bot_runner.adapters.bundles import remove
from loquat_bot_runner.adapters.layermaker import LayerMaker, NotInstallable, NotNow
from loquat_bot_runner.adapters.ownpackages import OwnPackages, own_packages
from loquat_bot_runner.domain.packages import LOCK, MOST, Package, layer_name, packages_of
from loquat_bot_runner.domain.wheels import LayerLimits
from loquat_bot_runner.errors import CallFailed, PackagesRefused, ProjectDatabaseAway

_AT_ONCE: Final = 2  # layers that are made at once; each keeps a processor busy
_PATIENCE: Final = 10.0  # seconds that one caller waits; the work goes on without him
_REMEMBERED: Final[dict[type[CallFailed], float]] = {
    PackagesRefused: 60.0,
    ProjectDatabaseAway: 10.0,
}  # seconds that what failed is not tried again
_MOST_REMEMBERED: Final = 1_000
_SHOWN: Final = 100  # characters of a package's name
_MOST: Final = 5
"""Layers of one project on a machine; one that no bot of this runner has goes for another."""

Write = Callable[[str | None, str, str], None]
"""A line for the project's log: no event, level, text."""
Failure = tuple[type[CallFailed], str]


class Layers:
    """Beside a project's unpacked versions, and swept with them. Never one for two projects: how long it takes would tell what others use."""

    def __init__(self, index: str | None = None, limits: LayerLimits | None = None, patience: float = _PATIENCE) -> None:
        self._maker, self._patience = LayerMaker(index, limits or LayerLimits()), patience
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._making: dict[str, tuple[Path, asyncio.Task[Failure | None]]] = {}
        self._failed: dict[Path, tuple[float, Failure]] = {}
        self._held: dict[object, Path] = {}
        self._own: OwnPackages | None = None

    async def of(self, project: str, folder: Path, write: Write) -> Path | None:
        """The layer of the version that is unpacked in `folder`, made if it is not there; None: it needs none.

        Raises:
            PackagesRefused: what its lock names cannot be installed.
            ProjectDatabaseAway: it cannot be made now, or is being made: the platform's fault.
        """
        packages = _locked(folder)
        if not packages:
            return None
        if self._own is None:
            self._own = await asyncio.to_thread(own_packages)
        wanted = [p for p in packages if p.name not in self._own.versions]
        if not wanted:
            return None
        python = f"{sys.implementation.cache_tag} {platform.machine()}"
        layer = folder.parent / layer_name(wanted, python, self._own.versions)
        if not _asked_for(layer):
            await self._made(project, wanted, layer, self._own)
            write(None, "info", _told(packages, layer, self._own))
        return layer

    def held(self, layer: Path) -> Callable[[], Awaitable[None]]:
        """A process has it from now on, until what is given is called, once or more."""
        process = object()
        self._held[process] = layer

        async def left() -> None:
            self._held.pop(process, None)

        return left

    async def _made(self, project: str, packages: Sequence[Package], layer: Path, own: OwnPackages) -> None:
        """Waits for it, with all who want the same."""
        until, failure = self._failed.get(layer, (0.0, None))
        if failure is None or time.monotonic() >= until:
            failure = await self._waited(project, packages, layer, own)
        if failure is not None:
            kind, reason = failure
            raise kind(reason)

    async def _waited(self, project: str, packages: Sequence[Package], layer: Path, own: OwnPackages) -> Failure | None:
        making = self._making.get(project)
        if making is None:
            making = self._making[project] = layer, asyncio.create_task(self._make(project, packages, layer, own), name=f"layer {project}")
        elif making[0] != layer:
            return ProjectDatabaseAway, "other packages of this project are being installed"
        done, _ = await asyncio.wait({making[1]}, timeout=self._patience)
        if not done:
            return ProjectDatabaseAway, "the bot's packages are being installed"
        return making[1].result()

    async def _make(self, project: str, packages: Sequence[Package], layer: Path, own: OwnPackages) -> Failure | None:
        try:
            async with self._room:
                if not await asyncio.to_thread(_room_for, layer, {*self._held.values()}):
                    return ProjectDatabaseAway, f"{_MOST} sets of packages of this project are in use on this machine"
                await self._maker.make(packages, layer, own)
        except NotInstallable as refusal:
            return self._failure(layer, PackagesRefused, str(refusal))
        except (NotNow, OSError) as reason:
            get_logger().error("bot.packages_not_installed", project=project, error=str(reason))
            return self._failure(layer, ProjectDatabaseAway, "the platform could not install the bot's packages")
        finally:
            del self._making[project]
        return None

    def _failure(self, layer: Path, kind: type[CallFailed], reason: str) -> Failure:
        while len(self._failed) >= _MOST_REMEMBERED:
            del self._failed[next(iter(self._failed))]
        self._failed[layer] = time.monotonic() + _REMEMBERED[kind], (kind, reason)
        return kind, reason

    async def close(self) -> None:
        """Ends what is under way; half a layer is none."""
        tasks = [task for _, task in self._making.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _locked(folder: Path) -> tuple[Package, ...]:
    try:
        return packages_of((folder / LOCK).read_bytes().decode())  # as it was checked: with its own ends of lines
    except FileNotFoundError:
        return ()


def _asked_for(layer: Path) -> bool:
    """Whether it is there; what sweeps folders goes by when that was asked last."""
    try:
        os.utime(layer)
    except FileNotFoundError:
        return False
    return True


def _room_for(layer: Path, used: Collection[Path]) -> bool:
    """Makes room for one more, if there is none: the one goes that nobody has and nobody asked for longest."""
    there = [found for found in layer.parent.glob("layer-*") if not found.suffix]
    if len(there) < _MOST:
        return True
    free = sorted((found.stat().st_mtime, found) for found in there if found not in used)
    if free:
        remove(free[0][1])
    return bool(free)


def _told(packages: Sequence[Package], layer: Path, own: OwnPackages) -> str:
    """Not all of a lock need be there: a condition may not hold here."""
    names = ", ".join(sorted(found.stem.replace("-", " ")[:_SHOWN] for found in layer.glob("*.dist-info"))[:MOST])
    others = [f"{p.name} {v} instead of {p.version}" for p in packages if (v := own.versions.get(p.name, p.version)) != p.version]
    return f"packages installed: {names}" + (f"; the platform's own stay: {', '.join(others)}" if others else "")
