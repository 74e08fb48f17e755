"""A file as lines: cut into blocks at the ends of records, records with their line numbers, JSON objects as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from loquat_schema_manager.domain.values import Typed, Unfit, as_text

BLOCK: Final = 1 << 20
"""Bytes that are given to Postgres at once."""
LONGEST: Final = 8 << 20
"""Bytes of one record."""
DELIMITERS: Final = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
_TRIES: Final = 100  # line ends that are tried before more is read: behind an open quote all of them are inside
_BOM: Final = b"\xef\xbb\xbf"
_WIDE: Final = (b"\xff\xfe", b"\xfe\xff")  # UTF-16


@dataclass(frozen=True, slots=True)
class Block:
    """Whole records. `line`: the number of the first line, from 1."""

    line: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """One record as CSV: the numbers of its first line and of the first one behind it."""

    line: int
    end: int
    data: bytes


class BadFile(Unfit):
    """The file cannot be read on from a line."""

    def __init__(self, line: int, code: str, title: str, detail: str | None = None, **about: Any) -> None:
        super().__init__(code, title, f"line {line}: {detail or title}", line=line, **about)


class Splitter:
    """Bytes in, blocks out. In a CSV a line end between quotes is none: as Postgres has it, every quote opens or closes."""

    def __init__(self, *, quotes: bool) -> None:
        self._quotes = quotes
        self._held = bytearray()
        self._line = 1
        self._next = BLOCK
        self._started = False

    def feed(self, piece: bytes) -> Block | None:
        """A block, when one is full.

        Raises:
            BadFile: not UTF-8, or a record has no end.
        """
        self._held += piece
        if not self._started and len(self._held) >= len(_BOM):
            self._start()
        if len(self._held) < self._next:
            return None
        cut = self._cut()
        if not cut:
            if len(self._held) > LONGEST:
                why = "a quote is not closed, or the line has no end" if self._quotes else "the line has no end"
                raise BadFile(self._line, "record_too_long", "A record is too long", f"{LONGEST} bytes are the limit; {why}")
            self._next += BLOCK
            return None
        self._next = BLOCK
        return self._taken(cut)

    def end(self) -> Block | None:
        """What is left."""
        if not self._started:
            self._start()
        return self._taken(len(self._held)) if self._held else None

    def _start(self) -> None:
        self._started = True
        if self._held.startswith(_WIDE) or b"\0" in self._held[:4]:
            raise BadFile(1, "wrong_encoding", "The file is not UTF-8", "it looks like UTF-16; save it as UTF-8")
        if self._held.startswith(_BOM):
            del self._held[: len(_BOM)]

    def _cut(self) -> int:
        end = self._held.rfind(b"\n") + 1
        for _ in range(_TRIES):
            if not end or not self._quotes or self._held.count(b'"', 0, end) % 2 == 0:
                return end
            end = self._held.rfind(b"\n", 0, end - 1) + 1
        return 0

    def _taken(self, cut: int) -> Block:
        block = Block(self._line, bytes(self._held[:cut]))
        del self._held[:cut]
        self._line += block.data.count(b"\n")
        return block


def records(block: Block) -> list[Record]:
    """The records of a CSV block."""
    found, held, start = list[Record](), b"", block.line
    for n, line in enumerate(block.data.splitlines(keepends=True) if b"\r" not in block.data else _lines(block.data), block.line):
        held += line
        if held.count(b'"') % 2 == 0:
            found.append(Record(start, n + 1, held))
            held, start = b"", n + 1
    return [*found, Record(start, start + held.count(b"\n") + 1, held)] if held else found


def _lines(data: bytes) -> list[bytes]:
    """By line feeds alone: a carriage return may stand in a quoted text."""
    parts = data.split(b"\n")
    return [p + b"\n" for p in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def fields(data: bytes, delimiter: str) -> list[str]:
    """The fields of one record."""
    return next(csv.reader(io.StringIO(data.decode(errors="replace"), newline=""), delimiter=delimiter), list[str]())


def header(block: Block, delimiter: str) -> tuple[list[str], Block]:
    """The names in the first record, and the block behind it.

    Raises:
        BadFile: there is none, or another delimiter was meant.
    """
    first = next(iter(records(block)), None)
    if first is None:
        raise BadFile(1, "no_header", "The file has no header")
    try:
        first.data.decode()
    except UnicodeDecodeError as error:
        raise BadFile(1, "wrong_encoding", "The file is not UTF-8", f"byte {error.start + 1} of the line; save it as UTF-8") from None
    names = [n.strip() for n in fields(first.data, delimiter)]
    if len(names) == 1 and (other := next((w for w, d in DELIMITERS.items() if d != delimiter and d in names[0]), None)):
        raise BadFile(
            1, "wrong_delimiter", "The file has another delimiter", f"one column is found, but the line has a {other}", delimiter=other
        )
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise BadFile(1, "wrong_header", "The header names a column twice", twice, column=twice)
    return names, Block(first.end, block.data[len(first.data) :])


def of_object(line: bytes, columns: dict[str, Typed]) -> tuple[tuple[str, ...], dict[str, str | None]]:
    """A line of JSONL: the names it has, and the text of each value.

    Raises:
        Unfit: not an object, a column that is not there, a value that does not fit.
    """
    try:
        given = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Unfit("not_json", "The line is not JSON", str(error)) from None
    if not isinstance(given, dict):
        raise Unfit("not_json", "The line is not a JSON object")
    found: dict[str, Any] = given  # pyright: ignore[reportUnknownVariableType]
    if not found:
        raise Unfit("no_columns", "The line names no column")
    if unknown := next((n for n in found if n not in columns), None):
        raise Unfit("unknown_column", "There is no such column, or Postgres itself fills it", unknown, column=unknown)
    return tuple(found), {n: as_text(columns[n], v) for n, v in found.items()}


def written(values: Sequence[str | None]) -> bytes:
    """A CSV record: null is nothing, every text is quoted."""
    return (",".join("" if v is None else '"' + v.replace('"', '""') + '"' for v in values) + "\n").encode()
