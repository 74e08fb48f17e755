"""From a change to its plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from loquat_rest import changes as shapes

from loquat_schema_manager.domain import columnplans, keyplans, tableplans
from loquat_schema_manager.domain.expansion import needs
from loquat_schema_manager.domain.steps import Plan
from loquat_schema_manager.domain.tables import Table

_FREEING: Final = (shapes.DropTable, shapes.ClearTable, shapes.DropColumn, shapes.DropConstraint, shapes.DropIndex)


def frees(changes: Sequence[shapes.Change]) -> bool:
    """Whether they only take away: they are the way out for a project that is over its size."""
    return bool(changes) and all(isinstance(change, _FREEING) for change in changes)


def plan(change: shapes.Change, tables: Mapping[str, Table], taken: Collection[str]) -> Plan:
    """The plan of one change (expanded before). `tables` holds what `needs` names; `taken` are names of relations of schema public.

    Raises:
        Refused: it cannot be done, or not with this table.
    """
    if isinstance(change, shapes.CreateTable):
        return tableplans.create_table(change)
    mine = tuple(tables[n] for n in needs(change))
    mine[0].changeable()
    match change:
        case shapes.RenameTable() | shapes.DropTable() | shapes.ClearTable() | shapes.CommentTable():
            found = _of_table(change, mine)
        case shapes.AddForeignKey():
            found = keyplans.add_foreign_key(change, mine[0], tables[change.to_table], taken)
        case (
            shapes.DropConstraint()
            | shapes.DropIndex()
            | shapes.CreateIndex()
            | shapes.SetPrimaryKey()
            | shapes.AddUnique()
            | shapes.SetLink()
        ):
            found = _of_key(change, mine[0], taken)
        case _:
            found = _of_column(change, mine[0])
    return found


_OfTable = shapes.RenameTable | shapes.DropTable | shapes.ClearTable | shapes.CommentTable
_OfKey = shapes.DropConstraint | shapes.DropIndex | shapes.CreateIndex | shapes.SetPrimaryKey | shapes.AddUnique | shapes.SetLink
_OfColumn = (
    shapes.AddColumn
    | shapes.RenameColumn
    | shapes.AlterType
    | shapes.DropColumn
    | shapes.SetDefault
    | shapes.SetNotNull
    | shapes.CommentColumn
)


def _of_table(change: _OfTable, tables: tuple[Table, ...]) -> Plan:
    match change:
        case shapes.RenameTable():
            found = tableplans.rename_table(change, tables[0])
        case shapes.DropTable():
            found = tableplans.drop_table(tables[0])
        case shapes.CommentTable():
            found = tableplans.comment_table(change, tables[0])
        case shapes.ClearTable():
            for table in tables:
                table.changeable()
            found = tableplans.clear_table(change, tables)
    return found


def _of_key(change: _OfKey, table: Table, taken: Collection[str]) -> Plan:
    match change:
        case shapes.SetPrimaryKey():
            found = keyplans.set_primary_key(change, table, taken)
        case shapes.AddUnique():
            found = keyplans.add_unique(change, table, taken)
        case shapes.DropConstraint():
            found = keyplans.drop_constraint(change, table)
        case shapes.CreateIndex():
            found = keyplans.create_index(change, table, taken)
        case shapes.DropIndex():
            found = keyplans.drop_index(change, table)
        case shapes.SetLink():
            found = keyplans.set_link(change, table, taken)
    return found


def _of_column(change: _OfColumn, table: Table) -> Plan:
    match change:
        case shapes.AddColumn():
            found = columnplans.add_column(change, table)
        case shapes.RenameColumn():
            found = columnplans.rename_column(change, table)
        case shapes.AlterType():
            found = columnplans.alter_type(change, table)
        case shapes.DropColumn():
            found = columnplans.drop_column(change, table)
        case shapes.SetDefault():
            found = columnplans.set_default(change, table)
        case shapes.SetNotNull():
            found = columnplans.set_not_null(change, table)
        case shapes.CommentColumn():
            found = columnplans.comment_column(change, table)
    return found
