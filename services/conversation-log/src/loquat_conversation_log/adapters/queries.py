"""Reading the record: contacts, conversations, messages. Pages by key, never by offset."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from loquat_common.db import ProjectPools
from loquat_events.projects import ProjectListed

Row = dict[str, Any]
_ERASED_AT: Final = "(to_jsonb(c) ->> 'erased_at')::timestamptz"
"""Of a contact `c`: null in a database that has not been brought to this release yet and has no such column."""


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
            f"SELECT id, name, phone_number, attributes, created_at, updated_at FROM public.contacts AS c WHERE {_ERASED_AT} IS NULL"  # noqa: S608  (a constant)
            " AND merged_into IS NULL AND ($1::timestamptz IS NULL OR (created_at, id) < ($1, $2::uuid))"
            " ORDER BY created_at DESC, id DESC LIMIT $3"
        )
        return await self._fetch(project, query, at, last, limit)

    async def contact(self, project: ProjectListed, contact: UUID) -> Row | None:
        """One, with its addresses and the numbers of its open conversations."""
        query = (
            f"SELECT id, name, phone_number, attributes, created_at, updated_at, merged_into, {_ERASED_AT} AS erased_at,"  # noqa: S608  (a constant)
            " (SELECT coalesce(jsonb_agg(jsonb_build_object('kind', a.kind, 'value', a.value)"
            "    ORDER BY array_position(ARRAY['user_id', 'wa_id', 'phone', 'username'], a.kind), a.value), '[]')"
            "  FROM loquat.addresses AS a WHERE a.contact_id = c.id) AS addresses,"
            " (SELECT coalesce(jsonb_agg(jsonb_build_object('id', v.id, 'number_id', v.number_id) ORDER BY v.opened_at DESC), '[]')"
            "  FROM public.conversations AS v WHERE v.contact_id = c.id AND v.status = 'open') AS open_conversations"
            " FROM public.contacts AS c WHERE c.id = $1"
        )
        rows = await self._fetch(project, query, contact)
        return rows[0] if rows else None

    async def conversations(self, project: ProjectListed, after: tuple[datetime, UUID] | None, limit: int) -> list[Row]:
        """Newest first, below `after`."""
        at, last = after or (None, None)
        query = (
            "SELECT v.id, v.contact_id, c.name AS contact_name, v.number_id, v.status, v.state, v.holder, v.opened_at, v.closed_at,"
            " (SELECT max(m.sent_at) FROM public.messages AS m WHERE m.conversation_id = v.id) AS last_message_at"
            " FROM public.conversations AS v JOIN public.contacts AS c ON c.id = v.contact_id"
            " WHERE $1::timestamptz IS NULL OR (v.opened_at, v.id) < ($1, $2::uuid) ORDER BY v.opened_at DESC, v.id DESC LIMIT $3"
        )
        return await self._fetch(project, query, at, last, limit)

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
