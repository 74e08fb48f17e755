"""A table as its plans need it: everything that the catalog says, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from loquat_common.sql import Ident

from loquat_schema_manager.domain.columns import ColumnType, of_catalog
from loquat_schema_manager.domain.refused import Refused

PUBLIC: Final = Ident("public")
ALLOWED_SYSTEM: Final = "It can be listed, described, read and exported; the platform alone writes and changes it"
ALLOWED_OTHER: Final = "It can be listed, described, read and exported, and dropped or changed by SQL"
ALLOWED_TABLE: Final = "Everything"
ALLOWED_KEYLESS: Final = "Everything but changing and deleting single rows: it has no primary key, so they cannot be told apart"


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column. `written` is the type as `format_type` says it; `default` the expression; `comment` with the mark of a link."""

    name: str
    written: str
    not_null: bool
    default: str | None
    generated: bool
    serial: bool
    comment: str | None

    @property
    def type(self) -> ColumnType | None:
        """As this API names it; None for a type that it does not make."""
        return of_catalog(self.written)


@dataclass(frozen=True, slots=True)
class Constraint:
    """`kind`: p primary key, u unique, f foreign key, c check, x exclusion. `definition` as `pg_get_constraintdef` says it."""

    name: str
    kind: Literal["p", "u", "f", "c", "x"]
    columns: tuple[str, ...]
    definition: str
    to_table: str | None = None
    to_columns: tuple[str, ...] = ()
    on_delete: Literal["no_action", "restrict", "cascade", "set_null", "set_default"] = "no_action"


@dataclass(frozen=True, slots=True)
class TableIndex:
    """`columns` are names, or expressions as PostgreSQL writes them; `names` is None at an expression's place."""

    name: str
    method: str
    unique: bool
    columns: tuple[str, ...]
    names: tuple[str | None, ...]
    partial: bool
    valid: bool
    constraint: str | None
    definition: str


@dataclass(frozen=True, slots=True)
class Table:
    """A relation of schema public. `kind` as `pg_class.relkind`; `rows` is PostgreSQL's estimate, `size` in bytes with indexes."""

    name: str
    kind: Literal["r", "p", "v", "m", "f"]
    is_system: bool
    comment: str | None
    rows: int | None
    size: int
    columns: tuple[TableColumn, ...]
    constraints: tuple[Constraint, ...]
    indexes: tuple[TableIndex, ...]
    referenced_by: tuple[str, ...]

    @property
    def ident(self) -> Ident:
        """Its name in SQL."""
        return PUBLIC.dot(self.name)

    @property
    def key(self) -> Constraint | None:
        """The primary key."""
        return next((c for c in self.constraints if c.kind == "p"), None)

    @property
    def allowed(self) -> str:
        """What one may do with it, for people."""
        if self.is_system:
            return ALLOWED_SYSTEM
        if self.kind not in {"r", "p"}:
            return ALLOWED_OTHER
        return ALLOWED_TABLE if self.key else ALLOWED_KEYLESS

    def changeable(self) -> None:
        """Its shape may be changed here.

        Raises:
            Refused: 403 `system_table`, 409 `not_a_table`.
        """
        if self.is_system:
            raise Refused(403, "system_table", f"{self.name} is a system table", ALLOWED_SYSTEM, table=self.name)
        if self.kind not in {"r", "p"}:
            raise Refused(409, "not_a_table", f"{self.name} is not a table", ALLOWED_OTHER, table=self.name)

    def column(self, name: str) -> TableColumn:
        """A column by its name.

        Raises:
            Refused: 404 `unknown_column`, with the columns there are.
        """
        for column in self.columns:
            if column.name == name:
                return column
        names = [c.name for c in self.columns]
        raise Refused(
            404, "unknown_column", "There is no such column", f"{self.name} has no column {name!r}", table=self.name, columns=names
        )

    def constraint(self, name: str) -> Constraint:
        """A constraint by its name.

        Raises:
            Refused: 404 `not_found`, with those there are.
        """
        for constraint in self.constraints:
            if constraint.name == name:
                return constraint
        names = [c.name for c in self.constraints]
        detail = f"{self.name} has no constraint {name!r}"
        raise Refused(404, "not_found", "There is no such constraint", detail, table=self.name, constraints=names)

    def index(self, name: str) -> TableIndex:
        """An index by its name.

        Raises:
            Refused: 404 `not_found`, with those there are.
        """
        for index in self.indexes:
            if index.name == name:
                return index
        names = [i.name for i in self.indexes]
        raise Refused(404, "not_found", "There is no such index", f"{self.name} has no index {name!r}", table=self.name, indexes=names)

    def ends(self, column: str) -> tuple[str, ...]:
        """This table and those at the other ends of foreign keys that this column takes part in: they are locked with it."""
        mine = [c for c in self.constraints if column in c.columns]
        targets = [c.to_table for c in mine if c.to_table is not None]
        sources = self.referenced_by if any(c.kind in {"p", "u"} for c in mine) else ()
        return tuple(dict.fromkeys((self.name, *targets, *sources)))

    def serves(self, columns: tuple[str, ...]) -> bool:
        """Whether an index finds rows by these columns: they come first in it, in any order."""
        wanted = frozenset(columns)
        return any(i.valid and not i.partial and frozenset(i.names[: len(columns)]) == wanted and i.method == "btree" for i in self.indexes)
