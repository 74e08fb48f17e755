"""The process of `aside`: reads one question from stdin, answers on stdout. What it is given is a stranger's."""

from __future__ import annotations

import importlib.util
import json
import marshal
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from loquat_bot_runner.domain.bundle import BundleRefused, checked
from loquat_bot_runner.domain.difference import difference

_MEMORY: Final = 2 << 30  # bytes of address space: the tree of a megabyte of brackets takes some 300 MB
_PROCESSOR: Final = 20  # seconds
_UNCHECKED: Final = 1
"""The flag of a compiled module (PEP 552) that is taken as it is: its source never changes."""
_COMPILED: Final = 4 << 20
"""Bytes of all compiled modules of a folder; four times what its sources may have. `"x" * 4096` is ten letters of source, and 4 KiB compiled."""


def _check(files: dict[str, str]) -> Any:
    try:
        return {"version": checked(files)}
    except BundleRefused as refused:
        return {"flaws": [asdict(flaw) for flaw in refused.flaws]}


def _diff(old: dict[str, str], new: dict[str, str]) -> Any:
    return [asdict(change) for change in difference(old, new)]


def _compile(folder: str) -> int:
    """How many modules were compiled. One that cannot be is the bot's own affair: it will hear of it when it imports it."""
    os.nice(10)
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_COMPILED, _COMPILED))
    left, done = _COMPILED, 0
    for source in sorted(Path(folder).rglob("*.py")):
        with suppress(SyntaxError, ValueError, RecursionError, MemoryError, OSError):
            compiled = bytecode(source, source.relative_to(folder))
            if len(compiled) <= left:
                _put(compiled, Path(importlib.util.cache_from_source(source)))
                left, done = left - len(compiled), done + 1
    return done


def bytecode(source: Path, name: Path) -> bytes:
    """As importlib reads it. The name is replaced there by that of the place where the module is imported from."""
    text = source.read_bytes()
    code = compile(text, str(name), "exec", dont_inherit=True)
    return importlib.util.MAGIC_NUMBER + _UNCHECKED.to_bytes(4, "little") + importlib.util.source_hash(text) + marshal.dumps(code)


def _put(compiled: bytes, place: Path) -> None:
    """All of it or nothing, also for a worker that looks just now. A folder that is gone is not made again."""
    place.parent.mkdir(exist_ok=True)
    making = place.with_suffix(f".{os.getpid()}")
    with making.open("wb") as file:
        file.write(compiled)
        file.flush()
        os.fsync(file.fileno())  # half a module after a crash would be a bot that does not start
    making.replace(place)


_QUESTIONS: Final[dict[str, Callable[..., Any]]] = {"check": _check, "diff": _diff, "compile": _compile}


def main() -> None:
    """One question: its name, and its arguments."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_PROCESSOR, _PROCESSOR))
    name, arguments = json.load(sys.stdin)
    json.dump(_QUESTIONS[name](*arguments), sys.stdout)


if __name__ == "__main__":
    main()
