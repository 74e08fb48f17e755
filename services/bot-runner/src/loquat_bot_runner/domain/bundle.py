"""A bot's files: checked before they are kept, named by their content."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import PurePosixPath
from typing import Final

from loquat_bot_runner.domain import manifest, packages

MOST_FILES: Final = 200
LARGEST: Final = 1 << 20
"""Bytes of all files of a bundle together."""
LONGEST_PATH: Final = 200
_LONGEST_PART: Final = 255
"""Bytes of one name, the limit of Linux's file systems (NAME_MAX)."""
_SHOWN: Final = 20  # flaws that are told; a bundle with more is none
_BINARY: Final = re.compile("[\0-\x08\x0e-\x1a\x1c-\x1f]")  # no text has these; tab, line ends, form feed and escape some have


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a bundle cannot be kept: a code that programs may rely on, where, and what to do."""

    code: str
    message: str
    advice: str
    file: str | None = None
    line: int | None = None


class BundleRefused(Exception):
    """The bundle cannot be deployed. `reason`, `file` and `line` are those of the first flaw."""

    def __init__(self, flaws: Sequence[Flaw]) -> None:
        super().__init__("\n".join(f"{f.message} ({f.advice})" for f in flaws))
        self.flaws, first = tuple(flaws), flaws[0]
        self.reason, self.file, self.line = first.message, first.file, first.line


def checked(files: Mapping[str, str]) -> str:
    """The version of a bundle: sha-256 over its files, in hex.

    Raises:
        BundleRefused: with every flaw that is found: too large, a path that leads out, no bot.py, no text, Python or TOML that does not parse.
    """
    if flaws := [*_bounds(files)]:
        raise BundleRefused(flaws)
    each = (flaw for path, content in files.items() for flaw in _flaws(path, content))
    if flaws := [*islice(chain(_missing(files), _covered(files), each), _SHOWN)]:  # no more are looked for: some take long
        raise BundleRefused(flaws)
    return digest(files)


def digest(files: Mapping[str, str]) -> str:
    """sha-256 over the files whatever their order, in hex."""
    return hashlib.sha256(json.dumps(dict(sorted(files.items()))).encode()).hexdigest()


def weight(path: str, content: str) -> int:
    """Bytes that a file counts for."""
    return len(path.encode(errors="replace")) + len(content.encode(errors="replace"))


def path_flaw(path: str) -> Flaw | None:
    """What is wrong with a file's path; None: nothing."""
    parts = PurePosixPath(path[: LONGEST_PATH + 1]).parts
    if (
        not path
        or len(path) > LONGEST_PATH
        or _BINARY.search(path) is not None
        or any("\ud800" <= c <= "\udfff" for c in path)
        or "\\" in path
        or path.startswith("/")
        or not parts
        or ".." in parts
        or str(PurePosixPath(path)) != path
        or any(len(part.encode()) > _LONGEST_PART for part in parts)
    ):
        reason = "a file's path must be relative, plain and stay inside the bundle"
        shown = path[:LONGEST_PATH].encode(errors="replace").decode()
        return Flaw(
            "path", reason, f"a path such as texts/de.py, of at most {LONGEST_PATH} characters, {_LONGEST_PART} bytes a name", shown
        )
    return None


def _bounds(files: Mapping[str, str]) -> Iterator[Flaw]:
    if len(files) > MOST_FILES:
        yield Flaw(
            "too_many_files", f"the bundle has {len(files)} files; {MOST_FILES} are the limit", "leave out what the bot does not need"
        )
    size = sum(weight(path, content) for path, content in files.items())
    if size > LARGEST:
        largest = max(files, key=lambda path: weight(path, files[path]))
        advice = f"the largest is {largest[:LONGEST_PATH]!r}; keep data in the project's database, not in files"
        yield Flaw("too_large", f"the bundle has {size} bytes; {LARGEST} are the limit", advice)


def _missing(files: Mapping[str, str]) -> Iterator[Flaw]:
    if "bot.py" not in files:
        deeper = next((p for p in sorted(files) if p.endswith("/bot.py")), None)
        advice = f"there is {deeper[:LONGEST_PATH]!r}: send the folder in which bot.py stands" if deeper else "a bot begins in bot.py"
        yield Flaw("no_bot", "the bundle has no bot.py", advice, "bot.py")


def _covered(files: Mapping[str, str]) -> Iterator[Flaw]:
    """A path below another file's: no folder holds both."""
    plain = {path for path in files if path_flaw(path) is None}
    for path in sorted(plain):
        above = (path[:end] for end, letter in enumerate(path) if letter == "/")
        if (file := next((p for p in above if p in plain), None)) is not None:
            yield Flaw("path", f"{path} lies below {file}, which is a file", "give one of the two another name", path)


def _flaws(path: str, content: str) -> Iterator[Flaw]:
    if (flaw := path_flaw(path)) is not None:
        yield flaw
        return
    try:
        content.encode()
    except UnicodeEncodeError:
        yield Flaw("not_text", "the file is no valid text", "save it as UTF-8", path)
        return
    if (found := _BINARY.search(content)) is not None:
        line = content.count("\n", 0, found.start()) + 1
        message = f"{path}, line {line}: the character U+{ord(found[0]):04X} stands in no text"
        yield Flaw("binary", message, "a bot consists of text files; leave out what is none", path, line)
        return
    if path.endswith(".py"):
        yield from _parses(path, content)
    elif path == packages.LOCK:
        for wrong in packages.flaws(content):
            yield Flaw("lock", f"{path}, line {wrong.line}: {wrong.message}", wrong.advice, path, wrong.line)
    elif path.endswith(".toml"):
        for wrong in manifest.flaws(path, content):
            place = f"{path}, line {wrong.line}" if wrong.line is not None else path
            yield Flaw(wrong.code, f"{place}: {wrong.message}", wrong.advice, path, wrong.line)


def _parses(path: str, content: str) -> Iterator[Flaw]:
    try:
        ast.parse(content, path)
    except SyntaxError as error:
        yield Flaw(
            "syntax", f"{path}, line {error.lineno}: {error.msg}", "this line, or the one before it, is no Python", path, error.lineno
        )
    except (ValueError, RecursionError, MemoryError) as error:
        yield Flaw("syntax", f"{path}: {error or 'nested too deeply'}", "Python cannot read it", path)
