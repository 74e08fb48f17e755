"""Plans of columns."""

from __future__ import annotations

from dataclasses import replace

from loquat_common.sql import Ident
from loquat_rest import changes as shapes

from loquat_schema_manager.domain import links
from loquat_schema_manager.domain.casts import Cast, cast_of, kin
from loquat_schema_manager.domain.columns import ColumnType, loosely
from loquat_schema_manager.domain.fragments import Deparsed, Fragment, Text, sql
from loquat_schema_manager.domain.newcolumns import VOLATILE, default_sql, definition, wanted_type
from loquat_schema_manager.domain.refused import Refused
from loquat_schema_manager.domain.steps import Check, Plan, Step
from loquat_schema_manager.domain.tables import PUBLIC, Table, TableColumn


def _alter(table: str, sql_text: str, *, rewrites: bool = False, scans: bool = False, checks: tuple[Check, ...] = ()) -> Step:
    counted = table if rewrites or scans else None
    return Step(sql_text, (table,), "ACCESS EXCLUSIVE", rewrites, scans, counted, checks)


def add_column(change: shapes.AddColumn, table: Table) -> Plan:
    """`ADD COLUMN`. With a default that is the same for all rows nothing is rewritten."""
    column = change.column
    kind = wanted_type(column.type, "column.type")
    names: dict[str, Fragment] = {"table": table.ident, "column": Ident(column.name)}
    varies = kind.kind == "serial" or (column.default is not None and column.default.function in VOLATILE)
    empty = column.default is None or (column.default.function is None and column.default.value is None and kind.kind != "jsonb")
    checks = ()
    if not column.nullable and kind.kind != "serial" and empty:
        rows = sql("SELECT count(*) FROM {table}", **names)
        title = f"{table.name} has {{n}} rows, which would have no value in {column.name}: give it a default, or let it be empty"
        checks = (Check("not_null", title, rows, column=column.name),)
    text = sql("ALTER TABLE {table} ADD COLUMN {definition}", definition=Deparsed(definition(column, "column")), **names)
    values = sql("SELECT count(*) FROM {table} WHERE {column} IS NOT NULL", **names)
    lost = Check("would_lose_data", f"{table.name}.{column.name} has {{n}} values that would be lost", values, unless_forced=True)
    drop = _alter(table.name, sql("ALTER TABLE {table} DROP COLUMN {column}", **names), checks=(lost,))
    return Plan((_alter(table.name, text, rewrites=varies, checks=checks),), (drop,), (table.name,))


def rename_column(change: shapes.RenameColumn, table: Table) -> Plan:
    """`RENAME COLUMN`."""
    table.column(change.column)
    there, back = _rename(table, change.column, change.to), _rename(table, change.to, change.column)
    return Plan((there,), (back,), (table.name,))


def _rename(table: Table, old: str, new: str) -> Step:
    text = sql("ALTER TABLE {table} RENAME COLUMN {old} TO {new}", table=table.ident, old=Ident(old), new=Ident(new))
    return _alter(table.name, text)


def alter_type(change: shapes.AlterType, table: Table) -> Plan:
    """`ALTER COLUMN TYPE` after a look at what would not cast. A default of another family is taken away first and cast as well."""
    column, new = table.column(change.column), wanted_type(change.type, "type")
    if new.kind == "serial":
        raise Refused(422, "unknown_type", "A column cannot become a serial", "Make a new column of type serial", field="type")
    if column.generated:
        raise Refused(409, "generated", f"{column.name} is generated", "Its type follows from its expression", table=table.name)
    old = loosely(column.written)
    cast = cast_of(Ident(column.name), old, new, lossy=change.lossy)
    steps = _retyped(table, column, old, new, lossy=change.lossy)
    if not cast.undoable or old is None:
        why = f"the values were converted from {old or column.written} to {new} and may not come back as they were"
        return Plan(steps, (), (table.name,), why)
    if column.default is None or column.serial:
        return Plan(steps, _retyped(table, column, new, old, lossy=False), (table.name,))
    undo = _retyped(table, replace(column, default=None), new, old, lossy=False)
    back = _set_default(table, column.name, Deparsed(column.default))
    return Plan(steps, (_drop_default(table, column.name), *undo, back), (table.name,))


def _unfit(table: Table, column: TableColumn, new: ColumnType, cast: Cast) -> tuple[Check, ...]:
    if cast.fits == "true":
        return ()
    parts: dict[str, Fragment] = {"table": table.ident, "c": Ident(column.name), "fits": Deparsed(cast.fits)}
    return (
        Check(
            "does_not_cast",
            f"{{n}} rows of {table.name} have a value in {column.name} that is no {new}",
            sql("SELECT count(*) FROM {table} WHERE {c} IS NOT NULL AND NOT ({fits})", **parts),
            sql("SELECT pg_catalog.left({c}::text, 80) FROM {table} WHERE {c} IS NOT NULL AND NOT ({fits}) LIMIT 3", **parts),
            column.name,
        ),
    )


def _retyped(table: Table, column: TableColumn, old: ColumnType | None, new: ColumnType, *, lossy: bool) -> tuple[Step, ...]:
    """`ALTER COLUMN TYPE`. PostgreSQL casts a default itself where every value fits; elsewhere it would keep one that fails at the next insert."""
    cast = cast_of(Ident(column.name), old, new, lossy=lossy)
    checks = _unfit(table, column, new, cast)
    parts: dict[str, Fragment] = {"table": table.ident, "c": Ident(column.name), "to": Deparsed(str(new)), "using": Deparsed(cast.using)}
    text = sql("ALTER TABLE {table} ALTER COLUMN {c} TYPE {to} USING {using}", **parts)
    counted = table.name if cast.rewrites or checks else None
    step = Step(text, table.ends(column.name), "ACCESS EXCLUSIVE", cast.rewrites, bool(checks), counted, checks)
    if column.default is None or column.serial or not cast.rewrites or (cast.fits == "true" and kin(old, new)):
        return (step,)
    given = Deparsed(f"({column.default})")
    default = cast_of(given, old, new, lossy=lossy)
    fits: dict[str, Fragment] = {"d": given, "fits": Deparsed(default.fits)}
    check = Check(
        "does_not_cast",
        f"The default of {column.name} is no {new}: take it away first",
        sql("SELECT CASE WHEN {d} IS NULL OR {fits} THEN 0 ELSE 1 END", **fits),
        sql("SELECT pg_catalog.left({d}::text, 80)", **fits),
        column.name,
    )
    drop = replace(_drop_default(table, column.name), checks=(check,))
    return drop, step, _set_default(table, column.name, Deparsed(default.using))


def drop_column(change: shapes.DropColumn, table: Table) -> Plan:
    """`DROP COLUMN`, never with what depends on it."""
    column = table.column(change.column)
    text = sql("ALTER TABLE {table} DROP COLUMN {column}", table=table.ident, column=Ident(column.name))
    step = Step(text, table.ends(column.name), "ACCESS EXCLUSIVE")
    return Plan((step,), (), (table.name,), "the values are gone")


def set_default(change: shapes.SetDefault, table: Table) -> Plan:
    """`SET DEFAULT`, `DROP DEFAULT`."""
    column = table.column(change.column)
    if column.generated:
        raise Refused(409, "generated", f"{column.name} is generated", "It has no default", table=table.name)
    old = _drop_default(table, column.name) if column.default is None else _set_default(table, column.name, Deparsed(column.default))
    if change.default is None:
        return Plan((_drop_default(table, column.name),), (old,), (table.name,))
    if column.type is None:
        detail = f"It is {column.written}, which is none of this API's types; set the default by SQL"
        raise Refused(422, "unknown_type", "The column's type takes no default here", detail, field="column")
    new = _set_default(table, column.name, default_sql(change.default, column.type, "default"))
    return Plan((new,), (old,), (table.name,))


def _drop_default(table: Table, column: str) -> Step:
    return _alter(table.name, sql("ALTER TABLE {table} ALTER COLUMN {c} DROP DEFAULT", table=table.ident, c=Ident(column)))


def _set_default(table: Table, column: str, default: Deparsed) -> Step:
    return _alter(table.name, sql("ALTER TABLE {table} ALTER COLUMN {c} SET DEFAULT {d}", table=table.ident, c=Ident(column), d=default))


def set_not_null(change: shapes.SetNotNull, table: Table) -> Plan:
    """`SET NOT NULL` after a count of the rows without a value; `DROP NOT NULL`."""
    column = table.column(change.column)
    there, back = not_null(table, column.name), nullable(table, column.name)
    if not change.not_null:
        there, back = back, there
    return Plan((there,), (back,) if column.not_null != change.not_null else (), (table.name,))


def not_null(table: Table, column: str) -> Step:
    """Sets it."""
    parts: dict[str, Fragment] = {"table": table.ident, "c": Ident(column)}
    return _alter(table.name, sql("ALTER TABLE {table} ALTER COLUMN {c} SET NOT NULL", **parts), scans=True, checks=(nulls(table, column),))


def nulls(table: Table, column: str) -> Check:
    """Rows without a value."""
    count = sql("SELECT count(*) FROM {table} WHERE {c} IS NULL", table=table.ident, c=Ident(column))
    return Check("not_null", f"{{n}} rows of {table.name} have no value in {column}", count, column=column)


def nullable(table: Table, column: str) -> Step:
    """Takes it away."""
    return _alter(table.name, sql("ALTER TABLE {table} ALTER COLUMN {c} DROP NOT NULL", table=table.ident, c=Ident(column)))


def comment_column(change: shapes.CommentColumn, table: Table) -> Plan:
    """`COMMENT ON COLUMN`; the mark of a link is kept."""
    column = table.column(change.column)
    link, _ = links.read(column.comment)
    if links.read(change.comment)[0] is not None:
        raise Refused(422, "reserved", "A comment does not begin with the mark of a link", "Use the change set_link", field="comment")
    return Plan((comment(table, column, links.written(link, change.comment)),), (comment(table, column, column.comment),), (table.name,))


def comment(table: Table, column: TableColumn, text: str | None) -> Step:
    """Sets the whole comment."""
    column_name = PUBLIC.dot(table.name).dot(column.name)
    words = Text(text) if text else Deparsed("NULL")
    return Step(sql("COMMENT ON COLUMN {column} IS {text}", column=column_name, text=words), (table.name,), "SHARE UPDATE EXCLUSIVE")
