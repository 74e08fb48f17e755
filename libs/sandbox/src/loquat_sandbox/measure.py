"""Which level this machine gives, found by trying: a zygote, and in it a canary that tries what a hostile bot would."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from loquat_sandbox import canary, landlock, limits, network, outside, spawned, users
from loquat_sandbox.architectures import here
from loquat_sandbox.client import Zygote
from loquat_sandbox.confined import Confined, Confinement
from loquat_sandbox.groups import Groups
from loquat_sandbox.incarnation import ConfinementFailed, ZygoteLost
from loquat_sandbox.levels import Level
from loquat_sandbox.limits import Limits
from loquat_sandbox.sandbox import Sandbox
from loquat_sandbox.users import Users

_CANARY: Final = 20.0  # seconds for a canary to try everything; 0.1 is usual
_LARGEST: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Measured:
    """A sandbox at the highest level that stands, and why none above does."""

    sandbox: Sandbox
    missing: tuple[str, ...]


async def measure(bundles: Path, most: Level = Level.HARDENED) -> Measured:
    """Tries from the top, at most `most`. The folder `bundles` must be there."""
    missing: list[str] = []
    limits.allow_descriptors()
    if sys.platform != "linux" or here() is None:
        return Measured(Sandbox(bundles), (f"{sys.platform} on this processor has none of the walls",))
    groups = Groups.find() if most >= Level.HARDENED else None
    if isinstance(groups, str):
        missing.append(f"control groups: {groups}")
        groups = None
    if (numbers := users.available()) is None:
        missing.append("a user for each project: the runner is not root")
    for level in (Level.CONTAINED, Level.CONFINED):
        if level > most:
            continue
        for own in dict.fromkeys((numbers, None)):
            found = await _tried(bundles, level, own, groups if level >= Level.CONTAINED else None)
            if isinstance(found, Sandbox):
                return Measured(found, tuple(missing))
            missing += [f"level {level:d}{' with own users' if own is not None else ''}: {reason}" for reason in found]
    own = Users(*numbers) if numbers is not None and spawned.readable() else None
    return Measured(Sandbox(bundles, users=own), tuple(missing))


async def _tried(bundles: Path, level: Level, numbers: tuple[int, int] | None, groups: Groups | None) -> Sandbox | list[str]:
    if level is Level.CONFINED and landlock.abi() < landlock.TCP:
        return [f"Landlock's ABI is {landlock.abi()}; {landlock.TCP} is the first that judges connections"]
    sandbox = Sandbox(bundles, Zygote(level, bundles), Users(*numbers) if numbers is not None else None, groups)
    try:
        wrong = await _canary(sandbox, bundles)
    except (ConfinementFailed, ZygoteLost, OSError, users.UsersSpent) as error:
        wrong = [str(error)]
    if wrong:
        await sandbox.close()
        return wrong
    return sandbox


async def _canary(sandbox: Sandbox, bundles: Path) -> list[str]:
    """What is wrong with a worker, as it says itself and as it looks from outside."""
    with tempfile.TemporaryDirectory(prefix="canary-", dir=bundles) as folder:
        _open_to_all(Path(folder))
        confinement = Confinement(folder=Path(folder), limits=Limits(), canary=True)
        confined = await sandbox.confine("canary", confinement)
        try:
            async with _bait(confined) as (bait, door):
                wrong = outside.missing(confined, confinement.limits, sandbox.user_of("canary"), own_door=network.namespace_of(door))
                found = await _asked(confined, bait)
        finally:
            await confined.close()
    return [*wrong, *(f"not refused: {name}" for name in found.through), *(f"broken: {need}" for need in found.broken)]


async def _asked(confined: Confined, bait: canary.Bait) -> canary.Found:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_CANARY):
            await loop.sock_sendall(confined.control, msgspec.msgpack.encode(bait))
            answer = b""
            while chunk := await loop.sock_recv(confined.control, _LARGEST):
                answer += chunk
        return msgspec.msgpack.decode(answer, type=canary.Found)
    except (TimeoutError, msgspec.MsgspecError):
        confined.kill()
        await confined.ended()
        last = (confined.output.read(_LARGEST) or b"").decode(errors="replace").strip().rpartition("\n")[2]
        return canary.Found([], [f"the canary did not answer: {last or 'it said nothing'}"])


@asynccontextmanager
async def _bait(confined: Confined) -> AsyncGenerator[tuple[canary.Bait, socket.socket]]:
    """What a canary must not reach."""
    abstract = f"loquat-bait-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="loquat-bait-") as folder, network.door(0) as door, socket.socket(socket.AF_UNIX) as hidden:
        file = _open_to_all(Path(folder))
        hidden.bind(f"\0{abstract}")
        hidden.listen()
        doors = (confined.postgres_port, confined.egress_port)
        yield canary.Bait(confined.level, str(file), door.getsockname()[1], abstract, os.getpid(), doors), door


def _open_to_all(folder: Path) -> Path:
    """A file in it that everybody may read."""
    folder.chmod(0o755)
    file = folder / "bait"
    file.write_text("nobody's", encoding="ascii")
    file.chmod(0o644)
    return file
