"""The history of rows: noted by triggers in the project's own schema, read and undone as the project's editor."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID, uuid4

import orjson
from loquat_common.problems import Problem, not_found
from loquat_common.sql import Ident, compose
from loquat_rest.history import KEPT

from loquat_schema_manager.adapters.blame import fitting
from loquat_schema_manager.adapters.editors import Editors, Session, committed
from loquat_schema_manager.adapters.pages import reading
from loquat_schema_manager.adapters.relations import Column, Relation, find
from loquat_schema_manager.adapters.rows import Changed
from loquat_schema_manager.domain import statements, undo
from loquat_schema_manager.domain.exact import JSON
from loquat_schema_manager.domain.values import as_json

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

TABLE: Final = "row_history"
"""Where changes are noted: a table of the project's own. The name is taken from the first use on."""
_DAYS: Final = re.compile(rb"[1-9][0-9]{0,3}")
_TRIGGERS: Final = ("row_history", "row_history_truncate")
_COLUMNS: Final = {"id", "history", "operation", "at", "login", "claimed", "undoes", "transaction", "key", "old", "new"}
_SMALL: Final = {"smallint", "integer", "json", "jsonb"}
"""Types whose numbers stay numbers in JSON (ADR 0005)."""
_READ: Final = Session(statement_ms=10_000, read_only=True)
_FREES: Final = Session(frees=True)
_ENTRY: Final = 1 << 20  # bytes of one change that are shown
_PAGE: Final = 8 << 20  # bytes of a page, as of a page of rows
_ORPHANS: Final = 10_000  # changes of tables that are gone, deleted at once

# purpose: the arguments of the trigger (the identity of this table's changes, the days that they are kept), and whether it fires
_STATE: Final = """
SELECT t.tgargs AS arguments, t.tgenabled <> 'D' AS enabled FROM pg_catalog.pg_trigger AS t
WHERE t.tgrelid = $1::pg_catalog.int8::pg_catalog.oid AND t.tgname = 'row_history' AND NOT t.tgisinternal
  AND t.tgfoid = pg_catalog.to_regprocedure('public.row_history_note()')"""
_FUNCTIONS: Final = "SELECT pg_catalog.to_regprocedure('public.row_history_note()') IS NOT NULL AND pg_catalog.to_regproc('public.row_history_image') IS NOT NULL"
_ROW_TRIGGER: Final = """
SELECT pg_catalog.format('CREATE TRIGGER row_history AFTER INSERT OR UPDATE OR DELETE ON public.%I FOR EACH ROW EXECUTE FUNCTION public.row_history_note(%L, %L)', $1::text, $2::text, $3::text)"""
_TRUNCATE_TRIGGER: Final = """
SELECT pg_catalog.format('CREATE TRIGGER row_history_truncate AFTER TRUNCATE ON public.%I FOR EACH STATEMENT EXECUTE FUNCTION public.row_history_note(%L, %L)', $1::text, $2::text, $3::text)"""
_DROP_ORPHANS: Final = """
DELETE FROM public.row_history WHERE id IN (
  SELECT h.id FROM public.row_history AS h WHERE pg_catalog.convert_to(h.history::text, 'UTF8') || '\\x00'::bytea <> ALL (
    SELECT pg_catalog.substr(t.tgargs, 1, 37) FROM pg_catalog.pg_trigger AS t WHERE t.tgfoid = pg_catalog.to_regprocedure('public.row_history_note()')) LIMIT $1)"""
_GENERATED: Final = "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = $1::pg_catalog.int8::pg_catalog.oid AND attgenerated <> '' AND NOT attisdropped"
_CHANGE: Final = """
SELECT h.operation, ARRAY(SELECT pg_catalog.jsonb_object_keys(h.key)) AS key, ARRAY(SELECT pg_catalog.jsonb_object_keys(coalesce(h.old, h.new))) AS columns,
  ARRAY(SELECT o.key FROM pg_catalog.jsonb_each(h.old) AS o WHERE h.operation = 'update' AND o.value IS DISTINCT FROM h.new -> o.key) AS changed
FROM public.row_history AS h WHERE h.history = $1 AND h.id = $2"""
_UNDOING: Final = """
SELECT pg_catalog.set_config('loquat.undoes', $1, true), pg_catalog.set_config('TimeZone', 'UTC', true),
  pg_catalog.set_config('DateStyle', 'ISO, YMD', true), pg_catalog.set_config('IntervalStyle', 'postgres', true),
  pg_catalog.set_config('bytea_output', 'hex', true), pg_catalog.set_config('extra_float_digits', '1', true)"""
_MADE: Final = """
SELECT max(id) FROM public.row_history WHERE history = $1 AND undoes = $2 AND transaction = pg_catalog.pg_current_xact_id()::pg_catalog.text"""


def _shown(image: str) -> str:
    """An image as JSON that JavaScript reads without loss: numbers as strings, but for the columns $4, whose types have small ones or JSON."""
    value = "CASE WHEN pg_catalog.jsonb_typeof(e.value) = 'number' AND e.key <> ALL ($4) THEN pg_catalog.to_jsonb(e.value #>> '{}') ELSE e.value END"
    agg = f"(SELECT pg_catalog.jsonb_object_agg(e.key, {value}) FROM pg_catalog.jsonb_each({image}) AS e)"  # noqa: S608
    return f"CASE WHEN size <= {_ENTRY} THEN {agg}::pg_catalog.text END AS {image}"


def _page(one_row: str) -> str:
    """Changes before $2 of history $1, until $3 of them or `_PAGE` bytes are reached."""
    size = " + ".join(f"pg_catalog.octet_length(coalesce(h.{c}::pg_catalog.text, ''))" for c in ("key", "old", "new"))
    found = (
        f"SELECT h.*, {size} AS size FROM public.row_history AS h WHERE h.history = $1 AND h.id < $2{one_row} ORDER BY h.id DESC LIMIT $3"  # noqa: S608
    )
    summed = f"SELECT f.*, sum(least(f.size, {_ENTRY})) OVER (ORDER BY f.id DESC) - least(f.size, {_ENTRY}) AS before FROM ({found}) AS f"  # noqa: S608
    head = "id, operation, at, login, claimed, undoes, transaction"
    images = ", ".join(_shown(c) for c in ("key", "old", "new"))
    return f"SELECT {head}, size > {_ENTRY} AS too_large, {images} FROM ({summed}) AS s WHERE before < {_PAGE} ORDER BY id DESC"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Noted:
    """A page of changes. `key`, `old` and `new` of each are JSON texts."""

    enabled: bool
    keep_days: int | None
    changes: list[asyncpg.Record]
    more: bool


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What an undo did. `change`: the one it made; None where nothing is noted at present."""

    change: int | None
    left_out: list[str]


class State(NamedTuple):
    """Of a table whose changes are noted, or were: their identity, whether they still are, the days that they are kept."""

    history: UUID
    enabled: bool
    keep_days: int


class History:
    """The history of each table's rows. `changed` is told of every undo."""

    def __init__(self, editors: Editors, changed: Changed) -> None:
        self._editors, self._changed = editors, changed

    async def switch(self, project: str, table: str, *, enabled: bool, keep_days: int | None = None) -> int | None:
        """Notes changes from now on, or no more, and keeps each so long. Either may be said again; the days that hold now, if any were ever noted.

        Raises:
            Problem: 403 `system_table`, 404, 409 `no_key`, `not_a_table`, `already_there`.
        """
        async with self._editors.session(project, Session(frees=not enabled)) as connection:
            relation = await find(connection, table)
            relation.writable()
            if table == TABLE:
                raise Problem(409, "is_history", f"{TABLE} is where changes are noted", "It has no history itself")
            if enabled:
                relation.keyed()
            with fitting():
                async with connection.transaction():
                    await _switch(connection, relation, keep_days, enabled=enabled)
                    state = await _state(connection, relation)
        return state.keep_days if state is not None else None

    async def list(self, project: str, table: str, key: str | None, before: int | None, limit: int) -> Noted:
        """The newest changes before one, of all rows or of one.

        Raises:
            Problem: 404; 422 `wrong_key`.
        """
        async with self._editors.session(project, _READ) as connection:
            relation = await find(connection, table)
            with fitting():
                async with reading(connection):
                    state = await _state(connection, relation)
                    if state is None:
                        return Noted(enabled=False, keep_days=None, changes=[], more=False)
                    history, enabled, keep_days = state
                    given: list[object] = [
                        history,
                        before if before is not None else 1 << 62,
                        limit + 1,
                        [c.name for c in relation.columns if c.bare in _SMALL],
                    ]
                    sql = ""
                    if key is not None:
                        given.append(await _canonical(connection, relation, key))
                        sql = " AND pg_catalog.md5(h.key::pg_catalog.text) = pg_catalog.md5($5::pg_catalog.jsonb::pg_catalog.text)"
                    rows = await connection.fetch(_page(sql), *given)
                    more = len(rows) > limit or await _is_more(connection, history, rows, sql, given)
        return Noted(enabled, keep_days, rows[:limit], more)

    async def undo(self, project: str, table: str, change: int, actor: str) -> TakenBack:
        """Takes one change back, whatever came after it in other rows.

        Raises:
            Problem: 404; 409 `row_changed`, `cannot_undo`, `no_key`; 503 `outcome_unknown`; whatever a constraint or trigger of the table says.
        """
        async with self._editors.session(project, actor=actor) as connection:
            relation = await find(connection, table)
            relation.writable()
            relation.keyed()
            with fitting():
                state = await _state(connection, relation)
                if state is None:
                    raise not_found("change")
                async with committed(connection):
                    taken = await _undo(connection, relation, state[0], change)
        self._changed(project, table, 1, actor)
        return taken

    async def forget(self, project: str, table: str, before: datetime) -> int:
        """Deletes what was noted before a time; how many changes.

        Raises:
            Problem: 404.
        """
        async with self._editors.session(project, _FREES) as connection:
            relation = await find(connection, table)
            with fitting():
                state = await _state(connection, relation)
                if state is None:
                    return 0
                tag = await connection.execute("DELETE FROM public.row_history WHERE history = $1 AND at < $2", state[0], before)
        return int(tag.rpartition(" ")[2])


async def identity(connection: Connection, relation: Relation) -> UUID | None:
    """The identity that the changes of this table are noted under; None: none are, or not where we know the columns."""
    try:
        state = await _state(connection, relation)
    except Problem:
        return None
    return state[0] if state is not None else None


async def _state(connection: Connection, relation: Relation) -> State | None:
    row = await connection.fetchrow(_STATE, relation.oid)
    if row is None or not await is_there(connection):
        return None
    history, _, rest = bytes(row["arguments"]).partition(b"\0")
    days = rest.rstrip(b"\0")
    try:
        return State(UUID(history.decode()), row["enabled"], int(days) if _DAYS.fullmatch(days) else KEPT)
    except ValueError:  # somebody made the trigger by hand
        return None


async def is_there(connection: Connection) -> bool:
    """Whether changes can be noted.

    Raises:
        Problem: 409 `already_there`: something else has the name.
    """
    try:
        there = await find(connection, TABLE)
    except Problem:
        return False
    if there.kind != "r" or not {c.name for c in there.columns} >= _COLUMNS:
        raise Problem(409, "already_there", f"There is something else named {TABLE}", "The history of rows needs this name: rename it")
    return True


async def _switch(connection: Connection, relation: Relation, keep_days: int | None, *, enabled: bool) -> None:
    if not await is_there(connection):
        if not enabled:
            return
        await connection.execute(_script("history_table.sql"))
    if enabled and not await connection.fetchval(_FUNCTIONS):
        await connection.execute(_script("history.sql"))
    state = await _state(connection, relation)
    fires = state is not None and state.enabled
    if state is None and enabled:
        await _create(connection, relation, uuid4(), keep_days or KEPT)
        fires = True
    elif state is not None and keep_days not in {None, state.keep_days}:
        for trigger in _TRIGGERS:
            await connection.execute(compose("DROP TRIGGER IF EXISTS {trigger} ON {table}", table=relation.ident, trigger=Ident(trigger)))
        await _create(connection, relation, state.history, keep_days or KEPT)
        fires = True
    if (state is not None or enabled) and fires != enabled:
        for trigger in _TRIGGERS:
            sql = "ALTER TABLE {table} ENABLE TRIGGER {trigger}" if enabled else "ALTER TABLE {table} DISABLE TRIGGER {trigger}"
            await connection.execute(compose(sql, table=relation.ident, trigger=Ident(trigger)))
    await connection.execute(_DROP_ORPHANS, _ORPHANS)


async def _create(connection: Connection, relation: Relation, history: UUID, keep_days: int) -> None:
    for sql in (_ROW_TRIGGER, _TRUNCATE_TRIGGER):
        await connection.execute(await connection.fetchval(sql, relation.name, str(history), str(keep_days)))


def _script(name: str) -> str:
    return files("loquat_schema_manager.adapters").joinpath(name).read_text()


async def _canonical(connection: Connection, relation: Relation, key: str) -> str:
    """The key of a request as the trigger notes it: `{"id": "7"}` is `{"id": 7}`."""
    relation.keyed()
    try:
        given: Any = JSON.decode(key)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or set(given) != set(relation.key):  # pyright: ignore[reportUnknownArgumentType]
        raise Problem(
            422,
            "wrong_key",
            "The key does not name the columns of the primary key",
            f"They are {', '.join(relation.key)}",
            key=list(relation.key),
        )
    columns = [relation.column(c) for c in relation.key]
    record = orjson.dumps({c.name: as_json(c, given[c.name]) for c in columns}).decode()
    source = f"pg_catalog.json_to_record($1::pg_catalog.json) AS {statements.given(columns, 'k')}"
    return await connection.fetchval(f"SELECT pg_catalog.to_jsonb(k.*)::pg_catalog.text FROM {source}", record)  # noqa: S608  (quoted names)


async def _is_more(connection: Connection, history: UUID, rows: Sequence[asyncpg.Record], sql: str, given: Sequence[object]) -> bool:
    """Whether a page that its bytes ended is not the last one."""
    if not rows:
        return False
    more = f"SELECT EXISTS (SELECT FROM public.row_history AS h WHERE h.history = $1 AND h.id < $2{sql.replace('$5', '$3')})"  # noqa: S608
    return await connection.fetchval(more, history, rows[-1]["id"], *given[4:])


async def _undo(connection: Connection, relation: Relation, history: UUID, change: int) -> TakenBack:
    noted = await connection.fetchrow(_CHANGE, history, change)
    if noted is None:
        raise not_found("change")
    if noted["operation"] == "truncate":
        raise _cannot("A TRUNCATE keeps no rows")
    if set(noted["key"]) != set(relation.key):
        raise _cannot(f"The key has other columns now: {', '.join(relation.key)}")
    generated = {r["attname"] for r in await connection.fetch(_GENERATED, relation.oid)}
    there = [c for c in relation.columns if c.name not in generated and c.name in noted["columns"]]
    await connection.execute(_UNDOING, str(change))
    sql = await _inverse(connection, relation, history, change, noted, there)
    if (await connection.execute(sql, history, change)).rpartition(" ")[2] != "1":
        raise Problem(422, "raised", "A trigger of the table kept the row as it was")
    left_out = (
        set(noted["changed"] or noted["columns"]) - {c.name for c in relation.columns} if noted["operation"] != "insert" else set[str]()
    )
    return TakenBack(await connection.fetchval(_MADE, history, change), sorted(left_out))


async def _inverse(
    connection: Connection, relation: Relation, history: UUID, change: int, noted: asyncpg.Record, there: Sequence[Column]
) -> str:
    """The statement that takes the change back, once it is known that the row is still as the change left it."""
    key = [relation.column(c) for c in relation.key]
    compared = [c.name for c in there]
    row = await connection.fetchrow(undo.differing(relation.ident, key, there), history, change, *([compared] if there else []))
    if noted["operation"] == "delete":
        if row is not None:
            raise _moved("There is a row with this key again")
        return undo.insert(relation.ident, there)
    if row is None:
        raise _moved("The row is gone")
    if row[0]:
        raise _moved(f"These columns have other values now: {', '.join(sorted(row[0]))}", columns=sorted(row[0]))
    if noted["operation"] == "insert":
        return undo.delete(relation.ident, key)
    changed = [c for c in there if c.name in noted["changed"] and not c.generated]
    if not changed:
        raise _cannot(f"The table has these columns no more: {', '.join(sorted(noted['changed']))}")
    return undo.update(relation.ident, key, changed)


def _cannot(why: str) -> Problem:
    return Problem(409, "cannot_undo", "The change cannot be taken back", why)


def _moved(why: str, **more: Any) -> Problem:
    return Problem(409, "row_changed", "The row changed since", why, **more)
