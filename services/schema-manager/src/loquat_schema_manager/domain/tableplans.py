"""Plans of whole tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from loquat_common.sql import Ident
from loquat_rest import changes as shapes

from loquat_schema_manager.domain.fragments import Deparsed, Idents, Text, sql
from loquat_schema_manager.domain.newcolumns import definition
from loquat_schema_manager.domain.refused import Refused
from loquat_schema_manager.domain.steps import Check, Plan, Step
from loquat_schema_manager.domain.tables import PUBLIC, Table

_ROWS_GONE: Final = "the rows are gone"
_IDS: Final = {"uuid": "uuid NOT NULL DEFAULT pg_catalog.uuidv7()", "serial": "serial", "bigserial": "bigserial"}


def create_table(change: shapes.CreateTable) -> Plan:
    """`CREATE TABLE` with its key; the rest of its columns' wishes are changes of their own (`expansion`)."""
    names = [c.name for c in change.columns]
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise Refused(422, "already_there", "A column comes twice", f"{twice!r} is in the list more than once", table=change.name)
    lines = [definition(c, f"columns.{n}") for n, c in enumerate(change.columns)]
    key = tuple(change.primary_key or ())
    if not key and "id" in names:
        key = ("id",)
    elif not key and change.id != "none":
        lines.insert(0, sql("id {type}", type=Deparsed(_IDS[change.id])))
        key = ("id",)
    if missing := [k for k in key if k not in (*names, "id")]:
        raise Refused(
            422, "unknown_column", "The primary key names a column that is not there", f"There is no {missing[0]!r}", table=change.name
        )
    if key:
        lines.append(sql("PRIMARY KEY ({key})", key=Idents(key)))
    table = PUBLIC.dot(change.name)
    create = Step(sql("CREATE TABLE {table} ({lines})", table=table, lines=Deparsed(", ".join(lines))))
    return Plan((create,), (_drop(change.name, keep_rows=True),), (change.name,))


def _drop(name: str, targets: Iterable[str] = (), *, keep_rows: bool) -> Step:
    table = PUBLIC.dot(name)
    rows = sql("SELECT count(*) FROM {table}", table=table)
    lost = Check("would_lose_data", f"{name} has {{n}} rows that would be lost", rows, unless_forced=True)
    tables = tuple(dict.fromkeys((name, *targets)))
    checks = (lost,) if keep_rows else ()
    return Step(sql("DROP TABLE {table}", table=table), tables, "ACCESS EXCLUSIVE", counted=name, checks=checks)


def rename_table(change: shapes.RenameTable, table: Table) -> Plan:
    """`RENAME TO`."""
    return Plan((_rename(table.name, change.to),), (_rename(change.to, table.name),), (change.to,))


def _rename(old: str, new: str) -> Step:
    text = sql("ALTER TABLE {old} RENAME TO {new}", old=PUBLIC.dot(old), new=Ident(new))
    return Step(text, (old,), "ACCESS EXCLUSIVE", becomes=new)


def drop_table(table: Table) -> Plan:
    """`DROP TABLE`, never with what depends on it."""
    targets = (c.to_table for c in table.constraints if c.to_table)  # those that it refers to lose a trigger
    return Plan((_drop(table.name, targets, keep_rows=False),), (), (table.name,), _ROWS_GONE)


def clear_table(change: shapes.ClearTable, tables: tuple[Table, ...]) -> Plan:
    """`TRUNCATE`. Tables that refer to it have to be named."""
    names = tuple(dict.fromkeys(t.name for t in tables))
    if left := sorted(set(tables[0].referenced_by) - set(names)):
        detail = f"{', '.join(left)} refer to it: name them in `also`, and their rows go too"
        raise Refused(409, "still_needed", f"{change.table} is referred to", detail, table=change.table, referenced_by=left)
    idents = Deparsed(", ".join(str(PUBLIC.dot(n)) for n in names))
    restart = Deparsed("RESTART IDENTITY" if change.restart_serials else "CONTINUE IDENTITY")
    step = Step(sql("TRUNCATE {tables} {restart}", tables=idents, restart=restart), names, "ACCESS EXCLUSIVE", counted=names[0])
    return Plan((step,), (), names, _ROWS_GONE)


def comment_table(change: shapes.CommentTable, table: Table) -> Plan:
    """`COMMENT ON TABLE`."""
    return Plan((_comment(table, change.comment),), (_comment(table, table.comment),), (table.name,))


def _comment(table: Table, comment: str | None) -> Step:
    text = Text(comment) if comment else Deparsed("NULL")
    return Step(sql("COMMENT ON TABLE {table} IS {text}", table=table.ident, text=text), (table.name,), "SHARE UPDATE EXCLUSIVE")
