"""The inbox's questions over the internal API, from real project databases: every row once, newest first, and for nobody else."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp.test_utils import TestClient, TestServer
from loquat_common.bus.memory import MemoryBroker, MemoryBus
from loquat_common.db import ProjectPools
from loquat_common.directory import Directory
from loquat_common.http import internal_auth
from loquat_common.sql import Ident, compose
from loquat_common.tokens import Actor, Signer, Verifier, new_key
from loquat_conversation_log.adapters.queries import Queries
from loquat_conversation_log.http.api import RecordApi
from loquat_events.catalog import DIRECTORY
from loquat_events.envelope import Event, Payload
from loquat_events.projects import ProjectListed, ProjectState

from tests.system.world import until
from tests.tenants import Desk, Project, message

PRIVATE, PUBLIC = new_key()
SCOPES = frozenset({"conversations:read"})


class Inbox:
    """The internal API as the gateway calls it for a user."""

    def __init__(self, client: TestClient[Any, Any], broker: MemoryBroker, directory: Directory) -> None:
        self._client, self._broker, self._directory = client, broker, directory
        self._signer = Signer("gateway", PRIVATE)

    async def know(self, project: Project, *, state: ProjectState = "ready", epoch: int = 1) -> None:
        """The directory's entry of a project."""
        entry = ProjectListed(
            project_id=project.project_id,
            organization_id="o",
            name="p",
            state=state,
            cluster="tenants",
            database=project.database,
            epoch=epoch,
        )
        said = Event[Payload].of(
            entry, id=uuid4(), source="/provisioner", time=datetime.now(UTC), project=project.project_id, lane="project"
        )
        await MemoryBus("provisioner", self._broker).publish(said)

        async def known() -> bool:
            return self._directory.get(project.project_id) == entry

        await until(known, "the directory says so")

    async def ask(
        self, project: str, tail: str, query: dict[str, str] | None = None, *, of: str | None = None, scopes: frozenset[str] = SCOPES
    ) -> tuple[int, dict[str, Any]]:
        path = f"/internal/projects/{project}/{tail}"
        actor = Actor("user", "u", "o", of or project, scopes)
        return await self.bare(path, self._signer.sign(actor, "conversation-log", "GET", path), query)

    async def bare(self, path: str, token: str | None, query: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        async with self._client.get(path, params=query, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def good(self, project: Project, tail: str, **query: str) -> dict[str, Any]:
        status, body = await self.ask(project.project_id, tail, query)
        assert status == 200, body
        return body

    async def pages(self, project: Project, tail: str, limit: int) -> AsyncGenerator[list[dict[str, Any]]]:
        """Page by page, to the last one."""
        cursor: str | None = None
        while True:
            page = await self.good(project, tail, limit=str(limit), **({"cursor": cursor} if cursor else {}))
            assert len(page["items"]) == limit or page["next_cursor"] is None
            yield page["items"]
            if (cursor := page["next_cursor"]) is None:
                return


@pytest.fixture
async def inbox(pools: ProjectPools, project: Project) -> AsyncGenerator[Inbox]:
    broker = MemoryBroker()
    table = MemoryBus("conversation-log", broker).table(DIRECTORY)
    task = asyncio.create_task(table.run())
    directory = Directory(table)
    api = RecordApi(Queries(pools), directory, internal_auth(Verifier({"gateway": PUBLIC}, "conversation-log")))
    async with TestClient(TestServer(api.api.app())) as client:
        made = Inbox(client, broker, directory)
        await made.know(project)
        yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(("tail", "key", "limit"), [("contacts", "created_at", 4), ("conversations", "opened_at", 7)])
async def test_pages_hold_every_row_once_newest_first_while_others_are_added(
    inbox: Inbox, project: Project, tail: str, key: str, limit: int
) -> None:
    desk = await Desk.of(project)
    for batch in range(5):  # the rows of a batch have one time
        await desk.record(*(message(f"wa_id:49{batch}{n}", name=f"{batch}{n}") for n in range(5)))
    seen = list[dict[str, Any]]()
    async for page in inbox.pages(project, tail, limit):
        seen += page
        await desk.record(message(f"wa_id:77{len(seen)}"))
    assert len(seen) == len({s["id"] for s in seen}) == 25
    assert seen == sorted(seen, key=lambda s: (s[key], s["id"]), reverse=True)
    again = [s async for page in inbox.pages(project, tail, 200) for s in page]
    assert [s["id"] for s in again][-25:] == [s["id"] for s in seen]
    assert len(again) > 25


async def test_a_conversations_messages_come_in_pages_newest_first_with_all_that_is_known(inbox: Inbox, project: Project) -> None:
    desk = await Desk.of(project)
    sent = [message("wa_id:491", text=str(n), sent_at=f"2026-01-01T00:00:{n // 4:02}Z") for n in range(20)]
    await desk.record(*sent, message("wa_id:492", text="somebody else"))
    (conversation,) = [c for c in (await inbox.good(project, "conversations"))["items"] if c["last_message_at"] == "2026-01-01T00:00:04Z"]
    seen = list[dict[str, Any]]()
    async for page in inbox.pages(project, f"conversations/{conversation['id']}/messages", 3):
        seen += page
        await desk.record(message("wa_id:491", text="later", sent_at="2026-01-02T00:00:00Z"))
    assert {s["text"] for s in seen} == {str(n) for n in range(20)}
    assert len(seen) == 20
    assert [s["sent_at"] for s in seen] == sorted((s["sent_at"] for s in seen), reverse=True)
    assert {(s["direction"], s["status"], s["sender"], s["conversation_id"]) for s in seen} == {
        ("in", "received", "contact", conversation["id"])
    }


@pytest.mark.promise("P6")
async def test_a_message_of_a_type_that_nobody_knows_is_shown(inbox: Inbox, project: Project) -> None:
    desk = await Desk.of(project)
    await desk.record(message("wa_id:491", type="hologram", text="seen", content={"depth": 3}))
    (conversation,) = (await inbox.good(project, "conversations"))["items"]
    (shown,) = (await inbox.good(project, f"conversations/{conversation['id']}/messages"))["items"]
    assert (shown["type"], shown["text"], shown["content"]) == ("hologram", "seen", {"depth": 3})


async def test_an_outbound_message_shows_every_status_that_it_had(inbox: Inbox, project: Project) -> None:
    desk = await Desk.of(project)
    (queued,) = await desk.run(message("wa_id:491"), replies=[{"type": "text", "text": "hello"}])
    for n, status in enumerate(("accepted", "delivered", "pondered")):
        receipt = {"key": queued["message_id"], "status": status, "at": f"2026-01-01T00:00:0{n}Z", "wamid": "wamid.1", "pricing": "service"}
        await desk.receipts(receipt)
    (conversation,) = (await inbox.good(project, "conversations"))["items"]
    shown = next(m for m in (await inbox.good(project, f"conversations/{conversation['id']}/messages"))["items"] if m["direction"] == "out")
    assert (shown["id"], shown["status"], shown["wamid"], shown["pricing"]) == (queued["message_id"], "delivered", "wamid.1", "service")
    assert {"accepted", "delivered", "pondered"} <= shown["transitions"].keys()


async def test_a_contact_comes_with_all_addresses_and_its_open_conversations(inbox: Inbox, project: Project) -> None:
    desk = await Desk.of(project)
    await desk.record(
        message("user_id:DE.1", "phone:+491", name="Anna", number="1"), message("user_id:DE.1", "username:anna", name="Anna", number="2")
    )
    await desk.run(message("user_id:DE.1"), contact={"language": "de"})
    (listed,) = (await inbox.good(project, "contacts"))["items"]
    found = await inbox.good(project, f"contacts/{listed['id']}")
    assert (found["name"], found["phone_number"], found["language"], listed["language"]) == ("Anna", "+491", "de", "de")
    assert [(a["kind"], a["value"]) for a in found["addresses"]] == [("user_id", "DE.1"), ("phone", "+491"), ("username", "anna")]
    assert {c["number_id"] for c in found["open_conversations"]} == {"1", "2"}


async def test_conversations_are_listed_by_holder_and_by_need_and_a_hold_that_is_over_is_the_bots(inbox: Inbox, project: Project) -> None:
    desk, root = await Desk.of(project), await project.root()
    await desk.record(*(message(f"wa_id:49{n}") for n in range(4)))
    held = "UPDATE public.conversations SET holder = $2, held_since = now(), held_until = now() + $3 WHERE id = $1"
    first, second, third, _ = [UUID(c["id"]) for c in (await inbox.good(project, "conversations"))["items"]]
    await root.execute(held, first, "people", timedelta(hours=1))
    await root.execute(held, second, "people", timedelta(0))
    await root.execute("UPDATE public.conversations SET needs_attention = true, attention_event = $2 WHERE id = $1", third, third)
    for query, found in (({"holder": "people"}, [first]), ({"needs_attention": "true"}, [third]), ({"holder": "phone"}, [])):
        assert [UUID(c["id"]) for c in (await inbox.good(project, "conversations", **query))["items"]] == found
    assert len((await inbox.good(project, "conversations", holder="bot", needs_attention="false"))["items"]) == 2
    one = await inbox.good(project, f"conversations/{second}")
    assert (one["holder"], one["held_until"], len(one["addresses"])) == ("bot", None, 1)
    assert (await inbox.good(project, f"conversations/{third}"))["attention_event"] == str(third)


async def test_of_a_database_that_is_behind_nothing_is_known_to_be_held_or_to_need_anything(inbox: Inbox, project: Project) -> None:
    await (await Desk.of(project)).record(message("wa_id:491"))
    root = await project.root()
    await root.execute("ALTER TABLE public.conversations RENAME needs_attention TO later")
    try:
        assert [len((await inbox.good(project, "conversations", needs_attention=a))["items"]) for a in ("true", "false")] == [0, 1]
        (known,) = (await inbox.good(project, "conversations", holder="bot"))["items"]
        assert (known["holder"], known["needs_attention"]) == ("bot", False)
    finally:
        await root.execute("ALTER TABLE public.conversations RENAME later TO needs_attention")


async def test_a_cursor_that_is_none_of_ours_and_a_limit_out_of_its_bounds_are_named_as_such(inbox: Inbox, project: Project) -> None:
    no_zone = base64.b64encode(b"2026-01-01T00:00:00 " + str(UUID(int=1)).encode()).decode()
    for tail in ("contacts", "conversations"):
        for cursor in ("x", "", "\N{SNOWMAN}", "AAAA", no_zone):
            status, problem = await inbox.ask(project.project_id, tail, {"cursor": cursor})
            assert (status, problem["code"]) == (400, "invalid_cursor")
        for limit in ("0", "201", "-1", "many"):
            status, problem = await inbox.ask(project.project_id, tail, {"limit": limit})
            assert (status, problem["errors"][0]["field"]) == (422, "query.limit")


@pytest.mark.promise("P4")
async def test_what_is_in_another_project_is_not_there(inbox: Inbox, project: Project, neighbour: Project) -> None:
    desk = await Desk.of(project)
    await inbox.know(neighbour)
    await desk.record(message("wa_id:491"))
    (contact,), (conversation,) = [(await inbox.good(project, t))["items"] for t in ("contacts", "conversations")]
    for tail in (f"contacts/{contact['id']}", f"conversations/{conversation['id']}/messages"):
        assert (await inbox.ask(project.project_id, tail))[0] == 200
        assert (await inbox.ask(neighbour.project_id, tail))[0] == 404
        assert (await inbox.ask(project.project_id, tail, of=neighbour.project_id))[0] == 404
    assert (await inbox.good(neighbour, "contacts"))["items"] == []


async def test_a_project_that_is_not_there_or_not_ready_is_said_to_be_so(inbox: Inbox, project: Project) -> None:
    assert (await inbox.ask("prj_nobodys", "contacts"))[0] == 404
    await inbox.know(project, state="creating")
    status, problem = await inbox.ask(project.project_id, "contacts")
    assert (status, problem["code"]) == (409, "project_not_ready")


async def test_a_database_that_is_away_or_has_moved_on_is_a_503_that_may_be_repeated(inbox: Inbox, project: Project) -> None:
    await inbox.know(project, epoch=2)
    status, problem = await inbox.ask(project.project_id, "contacts")
    assert (status, problem["code"]) == (503, "database_away")
    await inbox.know(project)
    root = await project.tenants.cluster.connect()
    name = Ident(project.database)
    await root.execute(compose("ALTER DATABASE {name} ALLOW_CONNECTIONS false", name=name))
    try:
        status, problem = await inbox.ask(project.project_id, "contacts")
        assert (status, problem["code"]) == (503, "database_away")
    finally:
        await root.execute(compose("ALTER DATABASE {name} ALLOW_CONNECTIONS true", name=name))
        await root.close()
    assert (await inbox.good(project, "contacts"))["items"] == []


@pytest.mark.promise("P4")
async def test_the_internal_api_answers_nobody_without_a_token_for_this_request(inbox: Inbox, project: Project) -> None:
    path = f"/internal/projects/{project.project_id}/contacts"
    actor = Actor("user", "u", "o", project.project_id, SCOPES)
    signer, stranger = Signer("gateway", PRIVATE), Signer("gateway", new_key()[0])
    wrong = [
        None,
        "",
        "x.y.z",
        stranger.sign(actor, "conversation-log", "GET", path),
        signer.sign(actor, "connector", "GET", path),
        signer.sign(actor, "conversation-log", "POST", path),
        signer.sign(actor, "conversation-log", "GET", path + "/"),
    ]
    for token in wrong:
        assert (await inbox.bare(path, token))[0] == 401
    assert (await inbox.ask(project.project_id, "contacts", scopes=frozenset({"numbers:write"})))[0] == 403
