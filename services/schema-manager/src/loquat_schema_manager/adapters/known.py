"""Shapes of tables that were looked at before, so that a page need not ask for them. Bounded by what they weigh: their columns."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from loquat_common.db import Place

from loquat_schema_manager.adapters.relations import Relation

MOST: Final = 100_000
"""Columns in all; one with long names takes about half a KB."""
SHARE: Final = 10_000
"""Columns of one project: nobody can crowd out the others."""


class Known:
    """The least recently used are forgotten first: those of the same project beyond its share, then those of the project that rested longest."""

    def __init__(self, most: int = MOST, share: int = SHARE) -> None:
        self._most, self._share = most, share
        self._places = OrderedDict[Place, OrderedDict[str, Relation]]()
        self._columns, self._of = 0, dict[Place, int]()

    def get(self, place: Place, table: str) -> Relation | None:
        """The shape, if it is remembered."""
        tables = self._places.get(place)
        if tables is None or table not in tables:
            return None
        self._places.move_to_end(place)
        tables.move_to_end(table)
        return tables[table]

    def keep(self, place: Place, relation: Relation) -> None:
        """Remembers it instead of what had its name."""
        if relation.name in self._places.get(place, ()):
            self._forget(place, relation.name)
        self._places.setdefault(place, OrderedDict())[relation.name] = relation
        self._places.move_to_end(place)
        self._count(place, _weight(relation))
        while self._of.get(place, 0) > self._share:
            self._forget(place, next(iter(self._places[place])))
        while self._columns > self._most:
            longest = next(iter(self._places))
            self._forget(longest, next(iter(self._places[longest])))

    def __len__(self) -> int:
        return sum(map(len, self._places.values()))

    def _forget(self, place: Place, table: str) -> None:
        tables = self._places[place]
        self._count(place, -_weight(tables.pop(table)))
        if not tables:
            del self._places[place], self._of[place]

    def _count(self, place: Place, columns: int) -> None:
        self._columns += columns
        self._of[place] = self._of.get(place, 0) + columns


def _weight(relation: Relation) -> int:
    return len(relation.columns) + 1
