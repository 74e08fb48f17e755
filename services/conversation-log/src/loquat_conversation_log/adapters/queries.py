"""Reading the record: contacts, conversations, messages. Pages by key, never by offset."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
from loquat_common.db import ProjectPools
from loquat_events.conversations import Holder
from loquat_events.projects import ProjectListed

Row = dict[str, Any]
_ERASED_AT: Final = "(to_jsonb(c) ->> 'erased_at')::timestamptz"
"""Of a contact `c`: null in a database that has not been brought to this release yet and has no such column."""
_CONTACT: Final = "c.id, c.name, c.phone_number, to_jsonb(c) ->> 'language' AS language, c.attributes, c.created_at, c.updated_at"


_HOLDER: Final = "CASE WHEN (to_jsonb(v)->>'held_until')::timestamptz <= now() THEN 'bot' ELSE v.holder END"
"""A hold whose time is over is the bot's again. Columns that an older database lacks are asked of the whole row."""
_CONVERSATIONS: Final = (
    f"SELECT v.id, v.contact_id, c.name AS contact_name, v.number_id, v.status, v.state, {_HOLDER} AS holder, v.opened_at, v.closed_at,"  # noqa: S608
    " to_jsonb(v) AS whole, (SELECT max(m.sent_at) FROM public.messages AS m WHERE m.conversation_id = v.id) AS last_message_at"
    " FROM public.conversations AS v JOIN public.contacts AS c ON c.id = v.contact_id"
)
_HELD: Final = ("holder_id", "held_since", "held_until", "hold_note")
_FLAGGED: Final = ("attention_since", "attention_event", "attention_run")


def _whole(row: Row) -> Row:
    """With the columns that only newer databases have."""
    whole = row["whole"]
    made = {k: v for k, v in row.items() if k != "whole"} | {k: whole.get(k) for k in _FLAGGED}
    held = {k: whole.get(k) if row["holder"] != "bot" else None for k in _HELD}
    return made | held | {"needs_attention": whole.get("needs_attention", False)}


class Queries:
    """One project at a time, as loquat_conversation_log, which may only read here."""

    def __init__(self, pools: ProjectPools) -> None:
        self._pools = pools

    async def _fetch(self, project: ProjectListed, query: str, *arguments: object) -> list[Row]:
        if project.cluster is None or project.database is None:
            return []
        async with self._pools.acquire(project.cluster, project.database, project=project.project_id, epoch=project.epoch) as connection:
            return [dict(r) for r in await connection.fetch(query, *arguments)]

    async def contacts(self, project: ProjectListed, after: tuple[datetime, UUID] | None, limit: int) -> list[Row]:
        """Newest first, below `after`."""
        at, last = after or (None, None)
        query = (
            f"SELECT {_CONTACT} FROM public.contacts AS c WHERE {_ERASED_AT} IS NULL"  # noqa: S608  (a constant)
            " AND merged_into IS NULL AND ($1::timestamptz IS NULL OR (created_at, id) < ($1, $2::uuid))"
            " ORDER BY created_at DESC, id DESC LIMIT $3"
        )
        return await self._fetch(project, query, at, last, limit)

    async def contact(self, project: ProjectListed, contact: UUID) -> Row | None:
        """One, with its addresses and the numbers of its open conversations."""
        query = (
            f"SELECT {_CONTACT}, merged_into, {_ERASED_AT} AS erased_at,"  # noqa: S608  (a constant)
            " (SELECT coalesce(jsonb_agg(jsonb_build_object('kind', a.kind, 'value', a.value)"
            "    ORDER BY array_position(ARRAY['user_id', 'wa_id', 'phone', 'username'], a.kind), a.value), '[]')"
            "  FROM loquat.addresses AS a WHERE a.contact_id = c.id) AS addresses,"
            " (SELECT coalesce(jsonb_agg(jsonb_build_object('id', v.id, 'number_id', v.number_id) ORDER BY v.opened_at DESC), '[]')"
            "  FROM public.conversations AS v WHERE v.contact_id = c.id AND v.status = 'open') AS open_conversations"
            " FROM public.contacts AS c WHERE c.id = $1"
        )
        rows = await self._fetch(project, query, contact)
        return rows[0] if rows else None

    async def conversations(
        self,
        project: ProjectListed,
        after: tuple[datetime, UUID] | None,
        limit: int,
        holder: Holder | None = None,
        *,
        needs_attention: bool | None = None,
    ) -> list[Row]:
        """Newest first, below `after`; of a holder alone, or those that need attention, or do not."""
        at, last = after or (None, None)
        wanted = ["($1::timestamptz IS NULL OR (v.opened_at, v.id) < ($1, $2::uuid))", f"($4::text IS NULL OR {_HOLDER} = $4)"]
        if holder not in {None, "bot"}:
            wanted.append("v.holder <> 'bot'")  # what its index is about
        if needs_attention is not None:
            wanted.append("v.needs_attention" if needs_attention else "NOT v.needs_attention")
        query = f"{_CONVERSATIONS} WHERE {' AND '.join(wanted)} ORDER BY v.opened_at DESC, v.id DESC LIMIT $3"
        try:
            return [_whole(r) for r in await self._fetch(project, query, at, last, limit, holder)]
        except asyncpg.UndefinedColumnError:  # a database that the sweep has not brought forward yet
            return [] if needs_attention else await self.conversations(project, after, limit, holder)

    async def conversation(self, project: ProjectListed, conversation: UUID) -> Row | None:
        """One, with its contact's addresses."""
        rows = await self._fetch(project, f"{_CONVERSATIONS} WHERE v.id = $1", conversation)
        if not rows:
            return None
        contact = await self.contact(project, rows[0]["contact_id"])
        return {**_whole(rows[0]), "addresses": contact["addresses"] if contact is not None else []}

    async def has_conversation(self, project: ProjectListed, conversation: UUID) -> bool:
        """Whether the project has it."""
        return bool(await self._fetch(project, "SELECT 1 FROM public.conversations WHERE id = $1", conversation))

    async def messages(self, project: ProjectListed, conversation: UUID, after: tuple[datetime, UUID] | None, limit: int) -> list[Row]:
        """Newest first, below `after`."""
        at, last = after or (None, None)
        query = (
            "SELECT id, conversation_id, direction, type, text, content, wamid, reply_to, sender, sender_id, status, transitions, error_code, error_title,"
            " pricing, billable, sent_at, recorded_at FROM public.messages WHERE conversation_id = $1"
            " AND ($2::timestamptz IS NULL OR (sent_at, id) < ($2, $3::uuid)) ORDER BY sent_at DESC, id DESC LIMIT $4"
        )
        return await self._fetch(project, query, conversation, at, last, limit)
