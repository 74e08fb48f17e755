"""A change that asks for several things at once, as changes of one thing each."""

from __future__ import annotations

from collections.abc import Sequence

from loquat_rest import changes as shapes


def expand(change: shapes.Change) -> list[shapes.Change]:
    """A table or column with its uniqueness, foreign keys, links and comments. Everything else is one thing already."""
    match change:
        case shapes.CreateTable():
            bare: list[shapes.NewColumn] = [_bare(c) for c in change.columns]
            table = change.model_copy(update={"columns": bare, "comment": None})
            comments: list[shapes.Change] = (
                [shapes.CommentTable(table=change.name, comment=change.comment)] if change.comment is not None else []
            )
            return [table, *comments, *_extras(change.name, change.columns)]
        case shapes.AddColumn(table=name, column=column):
            return [change.model_copy(update={"column": _bare(column)}), *_extras(name, [column])]
        case _:
            return [change]


def _bare(column: shapes.NewColumn) -> shapes.NewColumn:
    return column.model_copy(update={"unique": False, "references": None, "link": None, "comment": None})


def _extras(table: str, columns: Sequence[shapes.NewColumn]) -> list[shapes.Change]:
    found: list[shapes.Change] = []
    for column in columns:
        if column.unique:
            found.append(shapes.AddUnique(table=table, columns=[column.name]))
        if (target := column.references) is not None:
            to_columns = [target.column] if target.column is not None else None
            key = shapes.AddForeignKey(
                table=table, columns=[column.name], to_table=target.table, to_columns=to_columns, on_delete=target.on_delete
            )
            found.append(key)
        if column.link is not None:
            found.append(shapes.SetLink(table=table, column=column.name, link=column.link))
        if column.comment is not None:
            found.append(shapes.CommentColumn(table=table, column=column.name, comment=column.comment))
    return found


def needs(change: shapes.Change) -> tuple[str, ...]:
    """The tables that must be there for it, its own first."""
    match change:
        case shapes.CreateTable():
            return ()
        case shapes.ClearTable(table=table, also=also):
            return (table, *also)
        case shapes.AddForeignKey(table=table, to_table=to_table):
            return (table, to_table) if to_table != table else (table,)
        case _:
            return (change.table,)


def patched(table: str, column: str, patch: shapes.ColumnPatch) -> list[shapes.Change]:
    """The changes of a column's patch, its name last: the others still go by the old one."""
    given, found = patch.model_fields_set, list[shapes.Change]()
    if patch.type is not None:
        found.append(shapes.AlterType(table=table, column=column, type=patch.type, lossy=patch.lossy))
    if "default" in given:
        found.append(shapes.SetDefault(table=table, column=column, default=patch.default))
    if patch.nullable is not None:
        found.append(shapes.SetNotNull(table=table, column=column, not_null=not patch.nullable))
    if patch.unique:
        found.append(shapes.AddUnique(table=table, columns=[column]))
    if "link" in given:
        found.append(shapes.SetLink(table=table, column=column, link=patch.link))
    if "comment" in given:
        found.append(shapes.CommentColumn(table=table, column=column, comment=patch.comment))
    if patch.name is not None:
        found.append(shapes.RenameColumn(table=table, column=column, to=patch.name))
    return found
