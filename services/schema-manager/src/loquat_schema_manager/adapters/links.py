"""Link columns hold ids of the system's rows without a foreign key: the API looks whether they are there.

The look comes before the write. A contact that is merged or erased in between is followed by merge and erase, as one that is linked for long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from uuid import UUID

from loquat_rest.tables import Link

from loquat_schema_manager.adapters.blame import Given
from loquat_schema_manager.adapters.relations import Relation
from loquat_schema_manager.domain.links import LINKS, read
from loquat_schema_manager.domain.values import Typed, Unfit

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

_COMMENTS: Final = """
SELECT a.attname AS name, d.description AS comment FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_description AS d
  ON d.objoid = a.attrelid AND d.objsubid = a.attnum AND d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass
WHERE a.attrelid = $1::bigint::oid AND a.attname = ANY ($2::text[])"""
_MISSING: Final[dict[Link, str]] = {
    # as JSON: a database that has not been brought to this release yet has no such column
    "contact": "SELECT u.id FROM unnest($1::uuid[]) AS u(id) WHERE NOT EXISTS (SELECT FROM public.contacts AS x WHERE x.id = u.id"
    " AND x.merged_into IS NULL AND pg_catalog.to_jsonb(x) ->> 'erased_at' IS NULL)",
    "conversation": "SELECT u.id FROM unnest($1::uuid[]) AS u(id) WHERE NOT EXISTS (SELECT FROM public.conversations AS x WHERE x.id = u.id)",
    "message": "SELECT u.id FROM unnest($1::uuid[]) AS u(id) WHERE NOT EXISTS (SELECT FROM public.messages AS x WHERE x.id = u.id)",
}


async def of(connection: Connection, relation: Relation, columns: Sequence[Typed]) -> dict[str, Link]:
    """What each link column among `columns` links to, by the column's name."""
    names = sorted({c.name for c in columns if c.bare == "uuid"})
    if not names:
        return {}
    rows = await connection.fetch(_COMMENTS, relation.oid, names)
    return {r["name"]: link for r in rows if (link := read(r["comment"])[0]) is not None}


async def missing(connection: Connection, link: Link, ids: set[UUID]) -> set[UUID]:
    """Which of these ids belong to nothing of that kind."""
    return {r["id"] for r in await connection.fetch(_MISSING[link], sorted(ids))}


async def check(connection: Connection, relation: Relation, given: Sequence[Given]) -> None:
    """Every given value of a link column is the id of something that is there.

    Raises:
        Unfit: `no_such_link`, with column and value.
    """
    kinds = await of(connection, relation, [column for _, column, _ in given])
    for name, link in kinds.items():
        ids = {n: known for n, column, text in given if column.name == name and (known := as_id(text)) is not None}
        absent = await missing(connection, link, set(ids.values()))
        for row, this in ids.items():
            if this in absent:
                raise dead(name, link, this, row=row)


def dead(column: str, link: Link, value: UUID, **about: int) -> Unfit:
    """A link that leads nowhere."""
    return Unfit(
        "no_such_link", f"There is no such {link}", f"{column}: {value}", column=column, value=str(value), table=LINKS[link], **about
    )


def as_id(text: str | None) -> UUID | None:
    """A uuid in any of Postgres' spellings; None for what is none: that is for Postgres to refuse."""
    try:
        return None if text is None else UUID(text)
    except ValueError:
        return None
