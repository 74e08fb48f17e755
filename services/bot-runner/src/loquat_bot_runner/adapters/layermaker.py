"""Makes one layer: in processes aside, with limits and without secrets, in a folder that nobody looks into until it is finished."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

from loquat_common.logs import get_logger

from loquat_bot_runner.adapters.ownpackages import OwnPackages
from loquat_bot_runner.domain.packages import Package, lock_of
from loquat_bot_runner.domain.pipwords import LONGEST_LINE, read
from loquat_bot_runner.domain.wheels import LayerLimits

_MODULE: Final = "loquat_bot_runner.adapters.layerchild"
_LOOK: Final = 0.25  # seconds between two looks at how much was fetched
_BESIDE: Final = 32 << 20  # bytes that pip may write beside the wheels, which it has twice for a moment
_PLACE: Final = re.compile(r"(://|url: /)\S+")
_KILLED_BY_LIMIT: Final = "the packages cannot be fetched and unpacked within limits"


class NotNow(Exception):
    """The platform cannot do it now: its index does not answer, its disk is full. For the log alone: it may name addresses."""


class NotInstallable(Exception):
    """It cannot be done, whoever tries; the text is for the bot's owner."""


class LayerMaker:
    """`index`: the package index, None for what pip is configured with on this machine."""

    def __init__(self, index: str | None, limits: LayerLimits) -> None:
        self._index, self._limits = index, limits

    async def make(self, packages: Sequence[Package], layer: Path, own: OwnPackages) -> None:
        """Installs `packages` as the folder `layer`, whole or not at all.

        Raises:
            NotInstallable: for what the packages are.
            NotNow: for what the platform is.
        """
        work = layer.with_name(f"{layer.name}.{time.monotonic_ns()}")
        try:
            async with asyncio.timeout(self._limits.seconds):
                await self._made(packages, work, own)
            _put(work / "made", layer)
        except TimeoutError:
            raise NotInstallable(f"the packages could not be installed within {self._limits.seconds:g} s") from None
        except OSError as error:
            raise NotNow(error.strerror or type(error).__name__) from None
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, work, ignore_errors=True))

    async def _made(self, packages: Sequence[Package], work: Path, own: OwnPackages) -> None:
        for folder in (work, work / "wheels", work / "tmp"):
            folder.mkdir(mode=0o700)
        (work / "made").mkdir(mode=0o755)
        (work / "lock").write_text(lock_of(packages), encoding="ascii")
        await self._fetch(work)
        answer = await self._unpacked(work, wheels=str(work / "wheels"), folder=str(work / "made"), own=sorted(own.modules))
        if answer is None or "refused" in answer:
            raise NotInstallable(answer["refused"] if answer else _KILLED_BY_LIMIT)
        if "away" in answer:
            raise NotNow(answer["away"])

    async def _fetch(self, work: Path) -> None:
        question = {"do": "fetch", "lock": str(work / "lock"), "wheels": str(work / "wheels"), "isolated": self._index is None}
        chosen = {"PIP_INDEX_URL": self._index, "PIP_CONFIG_FILE": "/dev/null"} if self._index is not None else {}
        most = 2 * self._limits.unpacked + _BESIDE
        with (work / "words").open("wb") as words:
            process = await self._started(question, work, stdout=words.fileno(), **chosen)
            try:
                while True:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK):
                            await process.wait()
                        break
                    if await asyncio.to_thread(_weight, work) > most:
                        raise NotInstallable(f"the packages are larger than {self._limits.unpacked >> 20} MiB, which is the limit")
            finally:
                await _end(process)
        if (process.returncode or 0) < 0:
            raise NotInstallable(_KILLED_BY_LIMIT)
        if process.returncode:
            await asyncio.to_thread(_explain, work / "words")

    async def _unpacked(self, work: Path, **question: Any) -> dict[str, str] | None:
        """None: the process ended without an answer."""
        process = await self._started({"do": "unpack", **question}, work, stdout=asyncio.subprocess.PIPE)
        try:
            answer = await process.stdout.read() if process.stdout is not None else b""
            await process.wait()
        finally:
            await _end(process)
        return json.loads(answer) if answer.endswith(b"\n") else None

    async def _started(self, question: dict[str, Any], work: Path, *, stdout: int, **environment: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-m",
            _MODULE,
            stdin=asyncio.subprocess.PIPE,
            stdout=stdout,
            stderr=asyncio.subprocess.STDOUT if stdout >= 0 else asyncio.subprocess.DEVNULL,
            env={"LANG": "C.UTF-8", "HOME": str(work / "tmp"), "TMPDIR": str(work / "tmp"), **environment},
            cwd="/",
        )
        if process.stdin is not None:
            process.stdin.write(json.dumps({**question, "runner": os.getpid(), "work": str(work), "limits": asdict(self._limits)}).encode())
            process.stdin.close()
        return process


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):  # it has ended: that is as it should be
        process.kill()
    await process.wait()


def _explain(words: Path) -> None:
    found = read(_pieces(words))
    if (refusal := found.refusal()) is not None:
        raise NotInstallable(refusal)
    said = [line for line in _pieces(words) if line.startswith("ERROR:")][-1:]
    told, *unfetched = (_PLACE.sub(r"\1***", text.strip()[:500]) for text in (*(said or ["nothing"]), *found.unfetched[:3]))
    get_logger().warning("bot.packages_not_fetched", said=told, unfetched=unfetched)  # an index may have a key in its path
    raise NotNow("pip could not fetch them")


def _pieces(words: Path) -> Iterator[str]:
    """Lines; what is longer comes in pieces, for a stranger's word may be one line of 100 MB."""
    with words.open(encoding="utf-8", errors="replace") as file:
        yield from iter(partial(file.readline, LONGEST_LINE), "")


def _weight(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # moved or removed meanwhile
            total += path.lstat().st_size
    return total


def _put(made: Path, layer: Path) -> None:
    try:
        made.rename(layer)
    except OSError:
        if not layer.is_dir():  # else another was first; the content is the same
            raise
