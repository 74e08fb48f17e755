"""A file as lines: cut into blocks at the ends of records, records with their line numbers, JSON objects as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from loquat_schema_manager.domain.exact import FINE, JSON
from loquat_schema_manager.domain.values import Typed, Unfit, as_text

BLOCK: Final = 1 << 20
"""Bytes that are given to Postgres at once."""
LONGEST: Final = 8 << 20
"""Bytes of one record."""
DELIMITERS: Final = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
_TRIES: Final = 100  # line ends that are tried before more is read: behind an open quote all of them are inside
_BOM: Final = b"\xef\xbb\xbf"
_WIDE: Final = (b"\xff\xfe", b"\xfe\xff")  # UTF-16
_QUOTED: Final = re.compile(rb'"[^"]*"')
_BARE_RETURN: Final = re.compile(rb"\r(?!\n)")
_SPACE: Final = re.compile(r"[ \t\n\r]*")


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
        odd = self._quotes and self._held.count(b'"', 0, end) % 2
        for _ in range(_TRIES):
            if not end or not odd:
                return end
            before = self._held.rfind(b"\n", 0, end - 1) + 1
            odd ^= self._held.count(b'"', before, end) % 2
            end = before
        return 0

    def _taken(self, cut: int) -> Block:
        block = Block(self._line, bytes(self._held[:cut]))
        del self._held[:cut]
        self._line += block.data.count(b"\n")
        return block


def records(block: Block) -> Iterator[Record]:
    """The records of a CSV block. Each byte is looked at once: a record may have as many lines as the block has bytes."""
    lines, start, odd = list[bytes](), block.line, 0
    for n, line in enumerate(_lines(block.data), block.line):
        lines.append(line)
        odd ^= line.count(b'"') % 2
        if not odd:
            yield Record(start, n + 1, b"".join(lines))
            lines, start = [], n + 1
    if lines:
        held = b"".join(lines)
        yield Record(start, start + held.count(b"\n") + 1, held)


def _lines(data: bytes) -> Iterator[bytes]:
    """By line feeds alone: a carriage return may stand in a quoted text."""
    at = 0
    while at < len(data):
        end = data.find(b"\n", at) + 1 or len(data)
        yield data[at:end]
        at = end


def refuse_bare_returns(first: Record) -> None:
    """For a file's first record.

    Raises:
        BadFile: its lines end with carriage returns alone, as those of old Macs: all of it would be one line.
    """
    if _BARE_RETURN.search(_QUOTED.sub(b"x", first.data)):
        why = "they end with carriage returns alone; save it with \\n or \\r\\n"
        raise BadFile(first.line, "wrong_line_ends", "The file has other line ends", why)


def fields(data: bytes, delimiter: str) -> list[str]:
    """The fields of one record."""
    return next(csv.reader(io.StringIO(data.decode(errors="replace"), newline=""), delimiter=delimiter), list[str]())


def header(block: Block, delimiter: str) -> tuple[list[str], Block]:
    """The names in the first record, and the block behind it.

    Raises:
        BadFile: there is none, or another delimiter or other line ends were meant.
    """
    first = next(records(block), None)
    if first is None:
        raise BadFile(1, "no_header", "The file has no header")
    refuse_bare_returns(first)
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


def of_object(line: bytes, columns: Mapping[str, Typed]) -> tuple[tuple[str, ...], dict[str, str | None]]:
    """A line of JSONL: the names it has, and the text of each value.

    Raises:
        Unfit: not an object, a column that is not there, a value that does not fit.
    """
    try:
        return _exact(line, columns) if FINE.search(line) else _plain(line, columns)
    except RecursionError:
        raise Unfit("not_json", "The line is nested too deeply") from None


def _plain(line: bytes, columns: Mapping[str, Typed]) -> tuple[tuple[str, ...], dict[str, str | None]]:
    try:
        given = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Unfit("not_json", "The line is not JSON", str(error)) from None
    found = _object(given, columns)
    return tuple(found), {n: as_text(columns[n], v) for n, v in found.items()}


def _exact(line: bytes, columns: Mapping[str, Typed]) -> tuple[tuple[str, ...], dict[str, str | None]]:
    """Numbers as they are written, and documents too: several times slower."""
    try:
        text = line.decode()
        found = _object(JSON.decode(text), columns)
        sources = _sources(text)
        texts = {n: sources[n] if columns[n].bare == "jsonb" and v is not None else as_text(columns[n], v) for n, v in found.items()}
        "".join(t for t in texts.values() if t).encode()  # half a character, which orjson refuses
    except ValueError as error:  # also of bytes that are no UTF-8, and of half a character
        raise Unfit("not_json", "The line is not JSON", str(error)) from None
    return tuple(found), texts


def _object(given: object, columns: Mapping[str, Typed]) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise Unfit("not_json", "The line is not a JSON object")
    found: dict[str, Any] = given  # pyright: ignore[reportUnknownVariableType]
    if not found:
        raise Unfit("no_columns", "The line names no column")
    if unknown := next((n for n in found if n not in columns), None):
        raise Unfit("unknown_column", "There is no such column, or Postgres itself fills it", unknown, column=unknown)
    return found


def _sources(text: str) -> dict[str, str]:
    """The members of a JSON object, each value as its text. The object is known to be right."""
    found, at = dict[str, str](), _after(text, text.index("{") + 1)
    while text[at] != "}":
        name, at = JSON.raw_decode(text, at)
        start = _after(text, _after(text, at) + 1)  # behind the colon
        _, end = JSON.raw_decode(text, start)
        found[name] = text[start:end]
        at = _after(text, end)
        if text[at] == ",":
            at = _after(text, at + 1)
    return found


def _after(text: str, at: int) -> int:
    """Where the white space from here ends."""
    space = _SPACE.match(text, at)
    return space.end() if space else at


def written(values: Sequence[str | None]) -> bytes:
    """A CSV record: null is nothing, every text is quoted."""
    return (",".join("" if v is None else '"' + v.replace('"', '""') + '"' for v in values) + "\n").encode()
