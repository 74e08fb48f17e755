"""Plans of keys, links and indexes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from loquat_common.sql import Ident
from loquat_rest import changes as shapes

from loquat_schema_manager.domain import links
from loquat_schema_manager.domain.columnplans import comment, nullable, nulls
from loquat_schema_manager.domain.fragments import Deparsed, Fragment, Idents, sql
from loquat_schema_manager.domain.refused import Refused
from loquat_schema_manager.domain.steps import Check, Plan, Step, pick
from loquat_schema_manager.domain.tables import PUBLIC, Constraint, Table

_ON_DELETE: Final = {"no_action": "NO ACTION", "restrict": "RESTRICT", "cascade": "CASCADE", "set_null": "SET NULL"}
_INDEXABLE: Final = "a btree index takes every type but jsonb; gin takes one jsonb column"


def set_primary_key(change: shapes.SetPrimaryKey, table: Table, taken: Collection[str]) -> Plan:
    """A primary key for a table without one."""
    columns = _columns(table, change.columns)
    if (key := table.key) is not None:
        detail = f"It is {key.name} ({', '.join(key.columns)}); drop that first"
        raise Refused(409, "already_there", f"{table.name} has a primary key", detail, table=table.name)
    checks = (*(nulls(table, c) for c in columns if not table.column(c).not_null), _duplicates(table, columns, nulls_too=True))
    name = pick(taken, table.name, (), "pkey")
    step = _add(table, name, sql("PRIMARY KEY ({columns})", columns=Idents(columns)), checks)
    undo = (_drop_constraint(table, name), *(nullable(table, c) for c in columns if not table.column(c).not_null))
    return Plan((step,), undo, (table.name,))


def add_unique(change: shapes.AddUnique, table: Table, taken: Collection[str]) -> Plan:
    """Columns that are unique together."""
    columns = _columns(table, change.columns)
    name = change.name or pick(taken, table.name, columns, "key")
    checks = (_duplicates(table, columns, nulls_too=False),)
    step = _add(table, name, sql("UNIQUE ({columns})", columns=Idents(columns)), checks)
    return Plan((step,), (_drop_constraint(table, name),), (table.name,))


def add_foreign_key(change: shapes.AddForeignKey, table: Table, target: Table, taken: Collection[str]) -> Plan:
    """A foreign key between tables of the project, and an index for its columns unless they have one."""
    if target.is_system:
        detail = "Make it a link column instead: `link` of a uuid column, contact, conversation or message. A foreign key would let a row of the project hold up the platform"
        raise Refused(403, "system_table", f"{target.name} is a system table", detail, table=target.name)
    columns = _columns(table, change.columns)
    key = target.key.columns if target.key else ()
    to_columns = _columns(target, change.to_columns or key)
    if not to_columns:
        raise Refused(
            409, "no_key", f"{target.name} has no primary key", "Give it one, or name unique columns in `to_columns`", table=target.name
        )
    if len(columns) != len(to_columns):
        detail = f"{len(columns)} columns cannot refer to {len(to_columns)} ({', '.join(to_columns)})"
        raise Refused(422, "wrong_columns", "The numbers of columns differ", detail, field="columns")
    name = change.name or pick({*taken, *(c.name for c in table.constraints)}, table.name, columns, "fkey")
    parts: dict[str, Fragment] = {
        "columns": Idents(columns),
        "target": target.ident,
        "to": Idents(to_columns),
        "action": Deparsed(_ON_DELETE[change.on_delete]),
    }
    text = sql("FOREIGN KEY ({columns}) REFERENCES {target} ({to}) ON DELETE {action}", **parts)
    step = Step(
        sql("ALTER TABLE {table} ADD CONSTRAINT {name} {text}", table=table.ident, name=Ident(name), text=Deparsed(text)),
        tuple(dict.fromkeys((table.name, target.name))),
        "SHARE ROW EXCLUSIVE",
        scans=True,
        counted=table.name,
        checks=(_strays(table, columns, target, to_columns),),
    )
    index, unindex = _served(table, columns, taken)
    drop = Step(_drop_constraint(table, name).sql, step.tables, "ACCESS EXCLUSIVE")  # both ends lose a trigger
    return Plan((step, *index), (*unindex, drop), (table.name,))


def _served(table: Table, columns: tuple[str, ...], taken: Collection[str]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """An index by these columns, and its end; nothing where there is one."""
    if table.serves(columns):
        return (), ()
    name = pick(taken, table.name, columns, "idx")
    text = sql("CREATE INDEX {name} ON {table} ({columns})", name=Ident(name), table=table.ident, columns=Idents(columns))
    return (Step(text, (table.name,), "SHARE", scans=True, counted=table.name),), (_drop_index(table, name),)


def _strays(table: Table, columns: tuple[str, ...], target: Table, to_columns: tuple[str, ...]) -> Check:
    """Rows that refer to what is not there. As the constraint itself (MATCH SIMPLE): a row with a null refers to nothing."""
    pairs = [(Ident("a").dot(c), Ident("b").dot(t)) for c, t in zip(columns, to_columns, strict=True)]
    parts: dict[str, Fragment] = {
        "a": table.ident,
        "b": target.ident,
        "full": Deparsed(" AND ".join(f"{c} IS NOT NULL" for c, _ in pairs)),
        "same": Deparsed(" AND ".join(f"{t} = {c}" for c, t in pairs)),
        "shown": Deparsed(" || ', ' || ".join(f"{c}::text" for c, _ in pairs)),
    }
    where = Deparsed(sql("FROM {a} AS a WHERE {full} AND NOT EXISTS (SELECT FROM {b} AS b WHERE {same})", **parts))
    return Check(
        "foreign_key",
        f"{{n}} rows of {table.name} refer to rows that {target.name} does not have",
        sql("SELECT count(*) {where}", where=where),
        sql("SELECT pg_catalog.left({shown}, 80) {where} LIMIT 3", where=where, shown=parts["shown"]),
        columns[0] if len(columns) == 1 else None,
    )


def _duplicates(table: Table, columns: tuple[str, ...], *, nulls_too: bool) -> Check:
    full = "true" if nulls_too else " AND ".join(f"{Ident(c)} IS NOT NULL" for c in columns)
    parts: dict[str, Fragment] = {
        "table": table.ident,
        "columns": Idents(columns),
        "full": Deparsed(full),
        "shown": Deparsed(" || ', ' || ".join(f"{Ident(c)}::text" for c in columns)),
    }
    groups = Deparsed(sql("FROM {table} WHERE {full} GROUP BY {columns} HAVING count(*) > 1", **parts))
    return Check(
        "not_unique",
        f"{{n}} values of {table.name} ({', '.join(columns)}) are there more than once",
        sql("SELECT count(*) FROM (SELECT {groups}) AS g", groups=groups),
        sql("SELECT pg_catalog.left({shown}, 80) {groups} LIMIT 3", groups=groups, shown=parts["shown"]),
        columns[0] if len(columns) == 1 else None,
    )


def _add(table: Table, name: str, constraint: str, checks: tuple[Check, ...] = ()) -> Step:
    text = sql("ALTER TABLE {table} ADD CONSTRAINT {name} {rest}", table=table.ident, name=Ident(name), rest=Deparsed(constraint))
    return Step(text, (table.name,), "ACCESS EXCLUSIVE", scans=True, counted=table.name, checks=checks)


def drop_constraint(change: shapes.DropConstraint, table: Table) -> Plan:
    """A key or check goes; its definition brings it back."""
    constraint = table.constraint(change.constraint)
    back = _add(table, constraint.name, constraint.definition)
    return Plan((Step(_drop_constraint(table, constraint.name).sql, _ends(table, constraint), "ACCESS EXCLUSIVE"),), (back,), (table.name,))


def _ends(table: Table, constraint: Constraint) -> tuple[str, ...]:
    return tuple(dict.fromkeys((table.name, *((constraint.to_table,) if constraint.to_table else ()))))


def _drop_constraint(table: Table, name: str) -> Step:
    text = sql("ALTER TABLE {table} DROP CONSTRAINT {name}", table=table.ident, name=Ident(name))
    return Step(text, (table.name,), "ACCESS EXCLUSIVE")


def create_index(change: shapes.CreateIndex, table: Table, taken: Collection[str]) -> Plan:
    """An index, built while writers wait: a set is one transaction, and `CONCURRENTLY` is none."""
    columns = _columns(table, change.columns)
    if stray := [d for d in change.descending if d not in columns]:
        raise Refused(
            422, "unknown_column", "A descending column is not in the index", f"{stray[0]!r} is not among its columns", field="descending"
        )
    wide = [c for c in columns if table.column(c).written == "jsonb"]
    if change.method == "gin":
        if len(columns) != 1 or not wide or change.unique or change.descending:
            raise Refused(
                422, "not_indexable", "A gin index is on one jsonb column", f"Not unique, not sorted; {_INDEXABLE}", field="columns"
            )
    elif wide:
        raise Refused(422, "not_indexable", f"{wide[0]} is jsonb", f"Use the method gin; {_INDEXABLE}", field="columns")
    name = change.name or pick(taken, table.name, columns, "idx")
    listed = ", ".join(f"{Ident(c)} DESC" if c in change.descending else str(Ident(c)) for c in columns)
    parts: dict[str, Fragment] = {
        "kind": Deparsed("UNIQUE INDEX" if change.unique else "INDEX"),
        "name": Ident(name),
        "table": table.ident,
        "method": Deparsed(change.method),
        "columns": Deparsed(listed),
    }
    text = sql("CREATE {kind} {name} ON {table} USING {method} ({columns})", **parts)
    checks = (_duplicates(table, columns, nulls_too=False),) if change.unique else ()
    step = Step(text, (table.name,), "SHARE", scans=True, counted=table.name, checks=checks)
    return Plan((step,), (_drop_index(table, name),), (table.name,))


def drop_index(change: shapes.DropIndex, table: Table) -> Plan:
    """An index goes; its definition brings it back."""
    index = table.index(change.index)
    if index.constraint is not None:
        detail = f"Drop the constraint {index.constraint} instead"
        raise Refused(409, "still_needed", f"{index.name} belongs to a constraint", detail, table=table.name, constraint=index.constraint)
    back = Step(index.definition, (table.name,), "SHARE", scans=True, counted=table.name)
    return Plan((_drop_index(table, index.name),), (back,), (table.name,))


def _drop_index(table: Table, name: str) -> Step:
    return Step(sql("DROP INDEX {name}", name=PUBLIC.dot(name)), (table.name,), "ACCESS EXCLUSIVE")


def set_link(change: shapes.SetLink, table: Table, taken: Collection[str]) -> Plan:
    """The mark of a link, after a look for ids that nobody has, and an index: merge and erase look the ids up."""
    column = table.column(change.column)
    _, words = links.read(column.comment)
    back = comment(table, column, column.comment)
    if change.link is None:
        return Plan((comment(table, column, links.written(None, words)),), (back,), (table.name,))
    if column.written != "uuid":
        raise Refused(422, "wrong_type", "A link column is a uuid", f"{column.name} is {column.type or column.written}", field="column")
    system = PUBLIC.dot(links.LINKS[change.link])
    parts: dict[str, Fragment] = {"table": table.ident, "c": Ident("a").dot(column.name), "system": system}
    strays = Deparsed(sql("FROM {table} AS a WHERE {c} IS NOT NULL AND NOT EXISTS (SELECT FROM {system} AS b WHERE b.id = {c})", **parts))
    check = Check(
        "foreign_key",
        f"{{n}} rows of {table.name} have a value in {column.name} that is no {change.link}'s id",
        sql("SELECT count(*) {strays}", strays=strays),
        sql("SELECT {c}::text {strays} LIMIT 3", strays=strays, c=parts["c"]),
        column.name,
    )
    mark = comment(table, column, links.written(change.link, words))
    index, unindex = _served(table, (column.name,), taken)
    marked = Step(mark.sql, mark.tables, mark.lock, scans=True, counted=table.name, checks=(check,))
    return Plan((marked, *index), (*unindex, back), (table.name,))


def _columns(table: Table, names: Collection[str]) -> tuple[str, ...]:
    """Columns that are there, each once.

    Raises:
        Refused: 404 `unknown_column`, 422 `wrong_columns`.
    """
    found = tuple(table.column(n).name for n in names)
    if len(set(found)) != len(found):
        raise Refused(422, "wrong_columns", "A column comes twice", f"The columns are {', '.join(found)}", field="columns")
    return found
