"""Link columns: a uuid column that holds ids of contacts, conversations or messages, without a foreign key (architecture, "Databases").

The mark is the first line of the column's comment. A comment is the one thing on a column that a dump carries, a rename keeps, the project's own SQL
can write (`COMMENT ON COLUMN t.c IS 'loquat:link=contact'`), and that runs nothing: a domain over uuid would be shorter to see but changes the type of
the bot's own queries, and a table of marks would not survive the bot's `DROP` and rename.
"""

from __future__ import annotations

from typing import Final, cast, get_args

from loquat_rest.tables import Link

LINKS: Final[dict[Link, str]] = {"contact": "contacts", "conversation": "conversations", "message": "messages"}
"""The table that each is of."""
MARK: Final = "loquat:link="
"""How the comment of a link column begins."""


def read(comment: str | None) -> tuple[Link | None, str | None]:
    """The mark in a column's comment, and the comment that people see."""
    if comment is None or not comment.startswith(MARK):
        return None, comment
    first, _, rest = comment.partition("\n")
    word = first.removeprefix(MARK).strip()
    if word not in get_args(Link):
        return None, comment
    return cast("Link", word), rest or None


def written(link: Link | None, comment: str | None) -> str | None:
    """The comment of a column with this mark, for people `comment`."""
    if link is None:
        return comment
    return f"{MARK}{link}" + (f"\n{comment}" if comment else "")
