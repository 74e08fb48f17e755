"""Import: blocks of lines go through COPY. A block that fails is taken apart around the line that Postgres names, so that each bad line is told.

All or nothing: one transaction, each block a savepoint. Best effort: each block its own transaction.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final, Literal

import asyncpg
from loquat_common.problems import Problem
from loquat_rest.tables import Link
from loquat_rest.transfer import LISTED, BadLine, ImportOptions, ImportReport

from loquat_schema_manager.adapters import links
from loquat_schema_manager.adapters.blame import fitting
from loquat_schema_manager.adapters.editors import Editors, Session
from loquat_schema_manager.adapters.refusals import refusal
from loquat_schema_manager.adapters.relations import Column, Relation, find
from loquat_schema_manager.adapters.rows import Changed
from loquat_schema_manager.domain import csvtext
from loquat_schema_manager.domain.csvtext import Block, Record, Splitter
from loquat_schema_manager.domain.values import Typed, Unfit, shorten

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

MOST_BAD: Final = 1000
"""Bad lines after which a file is not read on."""
_SESSION: Final = Session(statement_ms=60_000)
_SILENCE: Final = 12.0  # seconds between two pieces of the file; a transaction may rest for 15
_A_MIB: Final = 60.0
"""Seconds that a MiB of the file may take on its way, the time that Postgres takes for what came before not counted."""
_AT_ONCE: Final = 8
"""Files of one project on their way: until a connection is taken, each holds a record in memory, up to 8 MiB."""
_TOGETHER: Final = 2000  # records that are copied again when one of them is bad
_COPY_LIMIT: Final = 70.0  # seconds
_OF_A_LINE: Final = ("22", "23", "44", "P0", "38", "39", "2F")
"""Classes of errors that one line can cause. All others end the import."""

Format = Literal["csv", "jsonl"]


class _TooManyBad(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Where:
    line: int
    column: str | None
    value: str | None


@dataclass(slots=True)
class _Report:
    inserted: int = 0
    bad: int = 0
    lines: list[BadLine] = field(default_factory=list[BadLine])
    stopped_at: int | None = None

    def note(self, line: BadLine) -> None:
        self.bad += 1
        if len(self.lines) < LISTED:
            self.lines.append(line)
        if self.bad >= MOST_BAD:
            self.stopped_at = line.line
            raise _TooManyBad

    def shape(self) -> ImportReport:
        return ImportReport(
            inserted=self.inserted, bad=self.bad, bad_lines=sorted(self.lines, key=lambda b: b.line), stopped_at_line=self.stopped_at
        )


class Imports:
    """Files become rows. `changed` is told once, after it became true."""

    def __init__(self, editors: Editors, changed: Changed) -> None:
        self._editors, self._changed = editors, changed
        self._under_way = Counter[str]()

    async def run(
        self, project: str, table: str, options: ImportOptions, kind: Format, body: AsyncIterator[bytes], actor: str
    ) -> ImportReport:
        """Reads the body to its end. A connection is taken when its first block is there, or its end: until then a file that trickles holds none.

        Raises:
            Problem: 408 `too_slow`; 429 `busy`; 422 `import_refused` with the bad lines (all or nothing); 422 with the line when the file as a whole is wrong; see `refusals`.
        """
        self._editors.place(project)  # no file is read for a project that is not there
        if self._under_way[project] >= _AT_ONCE:
            raise Problem(429, "busy", "Too many files are on their way", f"{_AT_ONCE} at once are the limit of a project")
        self._under_way[project] += 1
        try:
            return await self._run(project, table, options, kind, body, actor)
        finally:
            self._under_way[project] -= 1
            if not self._under_way[project]:
                del self._under_way[project]

    async def _run(
        self, project: str, table: str, options: ImportOptions, kind: Format, body: AsyncIterator[bytes], actor: str
    ) -> ImportReport:
        report = _Report()
        with fitting():
            blocks = await _begun(_blocks(body, Splitter(quotes=kind == "csv")))
        try:
            async with self._editors.session(project, _SESSION, actor) as connection:
                relation = await find(connection, table)
                relation.writable()
                whole = options.mode == "all_or_nothing"
                with fitting():
                    async with connection.transaction() if whole else nullcontext():
                        await _Loader(connection, relation, options, kind, report).load(blocks)
                        if whole and report.bad:
                            raise _refused(report)
        finally:
            if report.inserted and options.mode == "best_effort":
                self._changed(project, table, report.inserted, actor)
        if report.inserted and options.mode == "all_or_nothing":
            self._changed(project, table, report.inserted, actor)
        return report.shape()


def _refused(report: _Report) -> Problem:
    shape = report.shape()
    detail = f"{shape.bad} bad {'line' if shape.bad == 1 else 'lines'}, the first is {shape.bad_lines[0].line}; nothing was imported"
    return Problem(422, "import_refused", "The file has bad lines", detail, **shape.model_dump(exclude={"inserted"}))


class _Loader:
    def __init__(self, connection: Connection, relation: Relation, options: ImportOptions, kind: Format, report: _Report) -> None:
        self._connection, self._relation, self._options, self._kind, self._report = connection, relation, options, kind, report
        self._delimiter = csvtext.DELIMITERS[options.delimiter] if kind == "csv" else ","
        self._prefix = f"COPY {relation.name}, line "
        self._links: dict[str, Link] = {}

    async def load(self, blocks: AsyncIterator[Block]) -> None:
        self._links = await links.of(self._connection, self._relation, self._relation.columns)
        try:
            await (self._csv(blocks) if self._kind == "csv" else self._jsonl(blocks))
        except _TooManyBad:
            return

    async def _csv(self, blocks: AsyncIterator[Block]) -> None:
        columns: list[Column] | None = None if self._options.header else self._named(self._options.columns)
        async for given in blocks:
            block = given
            if columns is None:
                names, block = csvtext.header(block, self._delimiter)
                columns = self._named(names)
            elif block.line == 1:
                csvtext.refuse_bare_returns(next(csvtext.records(block)))
            if len(columns) > 1:
                block = Block(block.line, _without_blank_end(block.data))
            by_record = self._links.keys() & {c.name for c in columns}
            if by_record or (block.data and not await self._copied(columns, block.data)):
                for some in _batches(block):
                    await self._copy_records(columns, await self._linked(columns, some))
        if columns is None:
            raise csvtext.BadFile(1, "no_header", "The file has no header")

    def _named(self, names: list[str] | None) -> list[Column]:
        if names is None:
            return [c for c in self._relation.columns if not c.generated]
        for name in names:
            if self._relation.column(name).generated:
                raise Unfit("generated", "Postgres itself fills this column", f"{name} cannot be given", column=name)
        return [self._relation.column(n) for n in names]

    async def _jsonl(self, blocks: AsyncIterator[Block]) -> None:
        known: dict[str, Typed] = {c.name: c for c in self._relation.columns if not c.generated}
        async for block in blocks:
            found = list[tuple[tuple[str, ...], Record]]()
            for number, made in await asyncio.to_thread(_objects, block, known):
                if isinstance(made, Unfit):
                    self._bad(number, made)
                else:
                    found.append(made)
            found.sort(key=lambda f: f[0])  # those that name the same columns become one COPY
            for names, group in groupby(found, key=lambda f: f[0]):
                columns = [self._relation.column(n) for n in names]
                await self._copy_records(columns, await self._linked(columns, [r for _, r in group]))

    async def _linked(self, columns: Sequence[Column], given: list[Record]) -> list[Record]:
        """The records whose links lead somewhere."""
        wanted: list[tuple[int, str, Link]] = [(n, c.name, self._links[c.name]) for n, c in enumerate(columns) if c.name in self._links]
        if not wanted:
            return given
        rows = [csvtext.fields(r.data, self._delimiter) for r in given]
        dead = dict[int, Unfit]()
        for at, name, link in wanted:
            ids = {n: this for n, row in enumerate(rows) if at < len(row) and (this := links.as_id(row[at])) is not None}
            absent = await links.missing(self._connection, link, set(ids.values()))
            dead |= {n: links.dead(name, link, this) for n, this in ids.items() if this in absent}
        for n, error in dead.items():
            self._bad(given[n].line, error)
        return [r for n, r in enumerate(given) if n not in dead]

    async def _copied(self, columns: Sequence[Column], data: bytes) -> bool:
        """Whether all of it became rows."""
        try:
            await self._copy(columns, data)
        except asyncpg.PostgresError as error:
            if not _of_a_line(error):
                raise
            return False
        return True

    async def _copy_records(self, columns: Sequence[Column], given: list[Record]) -> None:
        """Without recursion: a file can be bad in every line."""
        waiting = [given[at : at + _TOGETHER] for at in range(0, len(given), _TOGETHER)][::-1]
        while waiting:
            some = waiting.pop()
            if not some:
                continue
            try:
                await self._copy(columns, b"".join(r.data for r in some))
            except asyncpg.PostgresError as error:
                if not _of_a_line(error):
                    raise
                where = self._where(error)
                at = _index(some, where.line) if where else 0 if len(some) == 1 else None
                if at is None:  # said at the end, of none in particular
                    half = len(some) // 2
                    waiting += [some[half:], some[:half]]
                    continue
                self._blame(some[at], error, where)
                waiting += [some[at + 1 :], some[:at]]

    async def _copy(self, columns: Sequence[Column], data: bytes) -> None:
        async def source() -> AsyncGenerator[bytes]:
            yield data

        async with self._connection.transaction():
            tag = await self._connection.copy_to_table(
                self._relation.name, schema_name="public", columns=[c.name for c in columns], source=source(), format="csv",
                delimiter=self._delimiter, timeout=_COPY_LIMIT,
            )  # fmt: skip
        self._report.inserted += int(tag.rpartition(" ")[2])

    def _where(self, error: asyncpg.PostgresError) -> _Where | None:
        """Line of the block, column and value, from the words in which COPY tells them. A trigger's own context comes before them."""
        context = "\n" + str(getattr(error, "context", None) or "")
        _, found, rest = context.rpartition("\n" + self._prefix)
        digits = re.match(r"\d{1,9}", rest) if found else None
        if digits is None:
            return None
        words = rest[digits.end() :]
        column = next((c.name for c in self._relation.columns if words.startswith(f", column {c.name}: ")), None)
        return _Where(int(digits[0]), column, words[len(f", column {column}: ") :].strip('"') if column else None)

    def _blame(self, record: Record, error: asyncpg.PostgresError, where: _Where | None) -> None:
        problem = refusal(error)
        column = (where.column if where else None) or getattr(error, "column_name", None)
        value = where.value if where else None
        code = problem.code if problem else "sql_error"
        reason = (problem.detail or problem.title) if problem else str(error)
        self._report.note(BadLine(line=record.line, code=code, reason=reason[:500], column=column, value=shorten(value) if value else None))

    def _bad(self, line: int, error: Unfit) -> None:
        about: dict[str, Any] = {k: error.about.get(k) for k in ("column", "value")}
        self._report.note(BadLine(line=line, code=error.code, reason=error.detail or error.title, **about))


def _of_a_line(error: asyncpg.PostgresError) -> bool:
    return (error.sqlstate or "").startswith(_OF_A_LINE)


def _index(some: list[Record], number: int) -> int | None:
    """The record whose error COPY tells with this line number.

    COPY counts records, and inside of quotes the characters that end its lines; those of its first record it does not know yet and takes for
    carriage returns (copyfromparse.c).
    """
    passed, end = 0, b"\r"
    for n, record in enumerate(some):
        passed += 1 + record.data.rstrip(b"\r\n").count(end)
        if number <= passed:
            return n
        end = b"\r" if some[0].data.endswith(b"\r\n") else b"\n"
    return None


def _without_blank_end(data: bytes) -> bytes:
    trimmed = data.rstrip(b"\r\n")
    if not trimmed:
        return b""
    return data[: len(trimmed) + 2] if data[len(trimmed) :].startswith(b"\r\n") else data[: len(trimmed) + 1]


def _batches(block: Block) -> Iterator[list[Record]]:
    """A block may have half a million: neither found at once nor kept."""
    found = csvtext.records(block)
    while some := list(islice(found, _TOGETHER)):
        yield some


def _objects(block: Block, known: dict[str, Typed]) -> list[tuple[int, tuple[tuple[str, ...], Record] | Unfit]]:
    """The lines of a block of JSONL by their numbers: the names in each and it as CSV, or what is wrong with it. Read up to `MOST_BAD` wrong ones."""
    found, bad = list[tuple[int, tuple[tuple[str, ...], Record] | Unfit]](), 0
    for number, line in enumerate(block.data.split(b"\n"), block.line):
        if not line.strip():
            continue
        try:
            names, values = csvtext.of_object(line, known)
            found.append((number, (names, Record(number, number + 1, csvtext.written([values[n] for n in names])))))
        except Unfit as error:
            found.append((number, error))
            bad += 1
            if bad == MOST_BAD:
                break
    return found


async def _begun(blocks: AsyncGenerator[Block]) -> AsyncGenerator[Block]:
    """The same blocks; the first one is there."""
    first = await anext(blocks, None)

    async def all_of_them() -> AsyncGenerator[Block]:
        if first is not None:
            yield first
            async for block in blocks:
                yield block

    return all_of_them()


async def _blocks(body: AsyncIterator[bytes], splitter: Splitter) -> AsyncGenerator[Block]:
    clock, waited, came = asyncio.get_running_loop().time, 0.0, 0
    while True:
        began, left = clock(), _A_MIB * max(1.0, came / (1 << 20)) - waited
        try:
            async with asyncio.timeout(min(_SILENCE, left)):
                piece = await anext(body, None)
        except TimeoutError:
            why = (
                f"Nothing came for {_SILENCE:g} s"
                if left > _SILENCE
                else f"A MiB may take {_A_MIB:g} s; {came} bytes came in {waited:.0f} s"
            )
            raise Problem(408, "too_slow", "The file came too slowly", why) from None
        waited += clock() - began
        came += len(piece or b"")
        block = splitter.end() if piece is None else splitter.feed(piece)
        if block is not None:
            yield block
        if piece is None:
            return
