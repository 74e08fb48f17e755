"""What link columns do when a contact is merged or a person erased: which statement, how often a refusal is tried again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

from loquat_common.sql import Ident
from loquat_events.contacts import ContactErased, ContactMerged
from loquat_events.envelope import AnyEvent
from loquat_rest.tables import Link

TRIES: Final = 8
"""Refusals of one column until it is given up: about seven and a half hours by `pause_after`, in which somebody may mend a trigger."""
BATCH: Final = 1_000
"""Rows in one transaction: few enough for a tenant's row triggers within its ten seconds."""
State = Literal["open", "done", "failed"]
_FIRST, _FACTOR, _LONGEST = 5.0, 4.0, 6 * 3600.0  # seconds

_IDS: Final[dict[Link, str]] = {
    "contact": "SELECT u.id AS id FROM unnest($1::uuid[]) AS u(id)",
    "conversation": "SELECT v.id AS id FROM public.conversations AS v WHERE v.contact_id = ANY ($1::uuid[])",
    "message": "SELECT m.id AS id FROM public.messages AS m JOIN public.conversations AS v ON v.id = m.conversation_id WHERE v.contact_id = ANY ($1::uuid[])",
}
"""By link: the ids of these people's rows. They stay when a person is erased, without anything of his."""


@dataclass(frozen=True, slots=True)
class Following:
    """One merge or erase that links follow. `into`: of a merge."""

    id: UUID
    order_id: UUID
    project_id: str
    epoch: int
    people: tuple[UUID, ...]
    into: UUID | None
    actor: str


@dataclass(frozen=True, slots=True)
class LinkColumn:
    """A column that is marked as a link."""

    table: str
    column: str
    link: Link
    not_null: bool


def following_of(event: AnyEvent) -> Following | None:
    """What follows from an event; None: nothing."""
    match event.data:
        case ContactMerged() as data:
            return Following(event.id, data.order_id, data.project_id, data.epoch, (data.contact_id,), data.into, data.actor)
        case ContactErased() as data:
            return Following(event.id, data.order_id, data.project_id, data.epoch, data.people, None, data.actor)
        case _:
            return None


def concerns(following: Following, column: LinkColumn) -> bool:
    """A merge leaves conversations and messages their ids."""
    return following.into is None or column.link == "contact"


def batch(following: Following, column: LinkColumn) -> str:
    """The statement for one batch: $1 people, $2 whom a merge was into. It returns what the column holds afterwards; of a deleted row null."""
    table, name = _named(column)
    theirs = f"IN ({_IDS[column.link]})"
    which = f"x.ctid = ANY (ARRAY(SELECT y.ctid FROM {table} AS y WHERE y.{name} {theirs} LIMIT {BATCH})) AND x.{name} {theirs}"  # noqa: S608  (quoted names)
    if following.into is not None:
        return f"UPDATE {table} AS x SET {name} = $2::uuid WHERE {which} RETURNING x.{name} AS holds"  # noqa: S608
    if column.not_null:
        return f"DELETE FROM {table} AS x WHERE {which} RETURNING NULL::uuid AS holds"  # noqa: S608
    return f"UPDATE {table} AS x SET {name} = NULL WHERE {which} RETURNING x.{name} AS holds"  # noqa: S608


def any_left(column: LinkColumn) -> str:
    """The question whether the column still holds an id of $1's."""
    table, name = _named(column)
    return f"SELECT EXISTS (SELECT FROM {table} AS y WHERE y.{name} IN ({_IDS[column.link]}))"  # noqa: S608  (quoted names)


def _named(column: LinkColumn) -> tuple[Ident, Ident]:
    return Ident("public").dot(column.table), Ident(column.column)


def from_history(column: LinkColumn) -> str:
    """The statement that deletes a batch of what was noted of rows that held an id of $1's: of history $2, in the column $3."""
    texts = _IDS[column.link].replace(" AS id FROM", "::text FROM")
    return (
        "DELETE FROM public.row_history AS x WHERE x.ctid = ANY (ARRAY(SELECT h.ctid FROM public.row_history AS h WHERE h.history = $2::uuid"  # noqa: S608
        f" AND (h.old ->> $3 IN ({texts}) OR h.new ->> $3 IN ({texts})) LIMIT {BATCH})) AND x.history = $2::uuid RETURNING true"
    )


def pause_after(attempts: int, chance: float) -> float:
    """Seconds until a column that refused `attempts` times is tried again. `chance` is from 0 to 1."""
    return min(_LONGEST, _FIRST * _FACTOR ** (attempts - 1)) * (0.9 + 0.2 * chance)
