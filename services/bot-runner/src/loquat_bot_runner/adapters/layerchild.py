"""The process in which a layer is made: fetches with pip, then unpacks. What it is given is strangers', and it knows no secret but the index's address."""

from __future__ import annotations

import errno
import json
import lzma
import os
import resource
import shutil
import signal
import sys
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path, PurePosixPath
from typing import Any, Final

from loquat_sandbox import kernel, landlock, root

from loquat_bot_runner.adapters.asidechild import bytecode
from loquat_bot_runner.domain.wheels import LayerLimits, Member, WheelRefused, placed

_MEMORY: Final = 1 << 30  # bytes of address space; pip with the page of a large project takes some 200 MB
_PROCESSOR: Final = 90  # seconds
_COMPILING: Final = 30  # seconds for byte code, which are part of the time that a layer may take
_OUT_OF_MEMORY_SCORE: Final = "1000"  # where memory is short this process goes before anything that answers somebody
_FILES: Final = 256
_UNFITTING: Final = frozenset({errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EFBIG, errno.ELOOP})
"""What the wheels' own paths and sizes do. Another error is this machine's."""
_UNREADABLE: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, MemoryError, lzma.LZMAError)
_PIP: Final = (
    *("download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--no-cache-dir"),
    *("--no-input", "--no-color", "--progress-bar=off", "--disable-pip-version-check", "--retries=1", "--timeout=10", "-vv"),
)
"""Nothing is run of what is fetched: wheels alone, and no dependency that the lock does not name. `-vv`: else pip keeps to itself why it found nothing."""


def _limit(largest: int) -> None:
    for what, most in (
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_CPU, _PROCESSOR),
        (resource.RLIMIT_FSIZE, largest),
        (resource.RLIMIT_NOFILE, _FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    os.umask(0o022)
    with suppress(OSError):  # another kernel than Linux, or not ours to raise in some containers
        Path("/proc/self/oom_score_adj").write_text(_OUT_OF_MEMORY_SCORE, encoding="ascii")


def _confine(runner: int, read: Sequence[str], write: str, ports: Sequence[int] | None) -> None:
    """SIGKILL when the runner ends, whatever this process is by then. And what the kernel's Landlock keeps: of it and of what it becomes, nobody looks into the runner."""
    if sys.platform != "linux":
        return
    kernel.drop_bounding_set()
    kernel.drop_capabilities()  # one of them looks past Landlock into other processes
    kernel.die_with(runner)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if landlock.abi():
        landlock.restrict(read=read, write=(write,), devices=root.DEVICES, ports=ports)


def _fetch(lock: str, wheels: str, *, isolated: bool) -> None:
    more = ("--isolated",) if isolated else ()
    os.execv(sys.executable, [sys.executable, "-I", "-m", "pip", *_PIP, *more, "-d", wheels, "-r", lock])  # noqa: S606  (no shell)


class _Layer:
    """A layer that is being unpacked, and what may still come into it."""

    def __init__(self, folder: Path, limits: LayerLimits, own: frozenset[str]) -> None:
        self._folder, self._limits, self._own = folder, limits, own
        self._bytes = self._files = 0
        self._folders = {PurePosixPath(".")}

    def add(self, wheel: Path) -> None:
        """Unpacks one. What two wheels bring alike is the first one's."""
        package = " ".join(wheel.name.split("-")[:2])
        try:
            with zipfile.ZipFile(wheel) as archive:
                for info in archive.infolist():
                    for member, target in placed(package, [Member(info.filename, info.file_size, info.external_attr >> 16)], self._own):
                        self._count(member.size, PurePosixPath(target))
                        self._write(archive, info, self._folder / target)
        except _UNREADABLE as error:
            raise WheelRefused(f"{package} is no wheel that can be read ({type(error).__name__})") from None
        except OSError as error:
            if error.errno is None:  # a compression's, not the machine's
                raise WheelRefused(f"{package} is no wheel that can be read ({error})") from None
            if error.errno not in _UNFITTING:
                raise
            raise WheelRefused(f"{package} cannot be unpacked beside the others: {error.strerror}") from None

    def _count(self, size: int, target: PurePosixPath) -> None:
        folders = {*target.parents} - self._folders
        self._folders |= folders
        self._bytes, self._files = self._bytes + size, self._files + 1 + len(folders)
        if self._bytes > self._limits.unpacked:
            raise WheelRefused(f"the packages have more than {self._limits.unpacked >> 20} MiB unpacked, which is the limit")
        if self._files > self._limits.files:
            raise WheelRefused(f"the packages have more than {self._limits.files} files and folders, which is the limit")

    def _write(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
        if target.is_file():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as packed, target.open("xb") as file:  # reads what the list of contents says at most
            shutil.copyfileobj(packed, file)
        target.chmod(0o444)


def _unpack(wheels: str, folder: str, own: list[str], limits: LayerLimits) -> dict[str, str]:
    layer = _Layer(Path(folder), limits, frozenset(own))
    try:
        for wheel in sorted(Path(wheels).glob("*.whl")):
            layer.add(wheel)
    except WheelRefused as refused:
        return {"refused": str(refused)}
    except OSError as error:
        return {"away": error.strerror or "it cannot be unpacked"}
    return {}


def _compile(folder: str, most: int) -> None:
    """As much byte code as there may be source: `"x" * 4096` is ten letters of source, and 4 KiB compiled."""
    signal.alarm(_COMPILING)  # its end: all that is needed was said
    for source in sorted(Path(folder).rglob("*.py")):
        with suppress(SyntaxError, ValueError, RecursionError, MemoryError, OSError):
            compiled = bytecode(source, source.relative_to(folder))
            if len(compiled) <= most:
                most -= len(compiled)
                _put(compiled, Path(cache_from_source(source)))


def _put(compiled: bytes, place: Path) -> None:
    """All of it or nothing: half a module would be one that cannot be imported, and what `compileall` writes on a full disk is half a module."""
    place.parent.mkdir(exist_ok=True)
    making = place.with_suffix(".making")
    making.write_bytes(compiled)
    making.replace(place)


def main() -> None:
    """One question from stdin: what to do and with what; an answer on stdout, or pip's words there."""
    question: dict[str, Any] = json.load(sys.stdin)
    limits = LayerLimits(**question.pop("limits"))
    runner, work = question.pop("runner"), question.pop("work")
    _limit(limits.unpacked)
    if question.pop("do") == "fetch":
        _confine(runner, ["/"], work, None)  # pip may be configured to read from anywhere, and to ask any port
        _fetch(**question)
    _confine(runner, [*root.libraries(["loquat_bot_runner"]), question["wheels"]], question["folder"], ())
    print(json.dumps(_unpack(limits=limits, **question)), flush=True)  # noqa: T201  (the answer)
    _compile(
        question["folder"], limits.unpacked
    )  # for speed alone: what cannot be compiled, or ends this process, is read as it is when it is imported


if __name__ == "__main__":
    main()
