"""Helpers over the project's tables, all in the handler's one transaction: what they write is there when the handler ends well, or not at all.

Tables and columns are yours: never take their names from what somebody wrote. Values may be anything.
"""

from typing import Any

from asyncpg import Record
from loquat import Context

MOST = 100  # rows that one question gives, unless it says otherwise


# Looking up: contacts and messages are the platform's tables, to be read.


async def find_contact(ctx: Context, phone_number: str) -> Record | None:
    """The contact with this number, as WhatsApp writes it: +491511234567."""
    return await ctx.db.fetchrow("SELECT * FROM contacts WHERE phone_number = $1", phone_number)


async def look_up_contacts(ctx: Context, text: str, limit: int = MOST) -> list[Record]:
    """Contacts whose name or number holds this text; those that changed last come first."""
    return await ctx.db.fetch(
        "SELECT * FROM contacts WHERE strpos(lower(name), lower($1)) > 0 OR strpos(phone_number, $1) > 0 ORDER BY updated_at DESC LIMIT $2",
        text,
        limit,
    )


async def contacts_with(ctx: Context, limit: int = MOST, **attributes: Any) -> list[Record]:
    """Contacts of whom all of this is noted: `await contacts_with(ctx, vip=True)`."""
    return await ctx.db.fetch("SELECT * FROM contacts WHERE attributes @> $1 ORDER BY updated_at DESC LIMIT $2", attributes, limit)


async def last_messages(ctx: Context, limit: int = 20) -> list[Record]:
    """What was said with this contact, in all conversations, the last first."""
    return await ctx.db.fetch(
        "SELECT m.* FROM messages AS m JOIN conversations AS c ON c.id = m.conversation_id WHERE c.contact_id = $1 ORDER BY m.sent_at DESC LIMIT $2",
        ctx.contact.id,
        limit,
    )


# Recording: through the platform, because contacts are its table.


async def record(ctx: Context, *, name: str | None = None, language: str | None = None, **attributes: Any) -> None:
    """Notes something of the contact: `await record(ctx, name="Ada", vip=True)`. None takes an attribute away. See `ctx.contact.attributes`."""
    await ctx.contact.set(name=name, language=language, attributes=attributes)


# The project's own tables.


async def insert(ctx: Context, table: str, **values: Any) -> Record:
    """A new row, as it is there then: `booking = await insert(ctx, "bookings", contact_id=ctx.contact.id)`."""
    columns = ", ".join(map(quoted, values))
    places = ", ".join(f"${n}" for n in range(1, len(values) + 1))
    made = f"({columns}) VALUES ({places})" if values else "DEFAULT VALUES"
    return (await ctx.db.fetch(f"INSERT INTO {quoted(table)} {made} RETURNING *", *values.values()))[0]


async def query(ctx: Context, table: str, *, order_by: str = "", descending: bool = False, limit: int = MOST, **where: Any) -> list[Record]:
    """Rows in which all of this is so: `await query(ctx, "bookings", order_by="created_at", complete=True)`. None finds what is empty."""
    order = f" ORDER BY {quoted(order_by)}{' DESC' if descending else ''}" if order_by else ""
    return await ctx.db.fetch(f"SELECT * FROM {quoted(table)}{all_of(where)}{order} LIMIT {int(limit)}", *where.values())


async def update(ctx: Context, table: str, id: Any, **values: Any) -> Record | None:
    """Changes the row with this id; None: there is none."""
    changes = ", ".join(f"{quoted(column)} = ${n}" for n, column in enumerate(values, 2))
    return await ctx.db.fetchrow(f"UPDATE {quoted(table)} SET {changes} WHERE id = $1 RETURNING *", id, *values.values())


async def delete(ctx: Context, table: str, **where: Any) -> int:
    """Deletes the rows in which all of this is so; how many they were. Without any condition it refuses: that would be all."""
    if not where:
        raise ValueError(f"delete(ctx, {table!r}) would delete everything: say which rows")
    done = await ctx.db.execute(f"DELETE FROM {quoted(table)}{all_of(where)}", *where.values())
    return int(done.split()[-1])


def all_of(where: dict[str, Any]) -> str:
    """`WHERE a IS NOT DISTINCT FROM $1 AND ...`, which is `=`, and finds NULL, too."""
    conditions = [f"{quoted(column)} IS NOT DISTINCT FROM ${n}" for n, column in enumerate(where, 1)]
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def quoted(name: str) -> str:
    """A name as SQL has it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
