"""record_inbound on a real project database."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import pytest

if TYPE_CHECKING:
    from conftest import Desk, Make, Project


async def test_a_message_creates_contact_conversation_and_row_once(desk: Desk, project: Project, make: Make) -> None:
    event = make.message("user_id:u1", "phone:+491", text="hello", name="Ada")
    first = await desk.record(event)
    again = await desk.record(event, event)
    assert [r["fresh"] for r in first] == [True]
    assert [(r["event_id"], r["fresh"], r["conversation_id"]) for r in again] == [(UUID(event["id"]), False, first[0]["conversation_id"])]
    root = await project.root()
    contact = await root.fetchrow("SELECT name, phone_number FROM public.contacts")
    assert contact is not None
    assert tuple(contact) == ("Ada", "+491")
    rows = await root.fetch("SELECT id, direction, type, text, sender, status, wamid FROM public.messages")
    assert [tuple(r) for r in rows] == [(UUID(event["id"]), "in", "text", "hello", "contact", "received", event["message"]["wamid"])]
    assert await root.fetchval("SELECT count(*) FROM loquat.addresses") == 2
