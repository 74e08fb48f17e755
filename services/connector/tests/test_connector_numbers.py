"""Numbers: connected, moved, let go, in the order in which a gateway may learn of it; a token is never seen again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from loquat_common.bus.port import BusUnavailable, Done
from loquat_common.crypto import KeyRing, SealBroken
from loquat_common.http import internal_auth
from loquat_common.tokens import Actor, Signer, Verifier, new_key
from loquat_connector.adapters.numbers import Numbers
from loquat_connector.http.api import NumberApi
from loquat_events.catalog import INBOX, NUMBERS, TOPICS
from loquat_events.conversations import MessageReceived
from loquat_events.ids import message_id, update_id
from loquat_events.numbers import NumberAttached, UpdateUnrouted
from structlog.testing import capture_logs

from services.connector.tests.office import ANNA, NUMBER, PROJECT, TOKEN, Office, now, queued

OTHER = "prj_b"
PRIVATE, PUBLIC = new_key()
SCOPES = frozenset({"numbers:write", "numbers:read"})


class Desk:
    """The internal API as the gateway calls it."""

    def __init__(self, client: TestClient[Any, Any]) -> None:
        self._client, self._signer = client, Signer("gateway", PRIVATE)

    async def ask(
        self, method: str, project: str, tail: str = "", json: Any = None, *, of: str | None = None, scopes: frozenset[str] = SCOPES
    ) -> tuple[int, Any]:
        path = f"/internal/projects/{project}/numbers{tail}"
        token = self._signer.sign(Actor("user", "u", "o", of or project, scopes), "connector", method, path)
        return await self.bare(method, path, json, token)

    async def bare(self, method: str, path: str, json: Any, token: str) -> tuple[int, Any]:
        async with self._client.request(method, path, json=json, headers={"Authorization": f"Bearer {token}"}) as response:
            return response.status, (await response.json(content_type=None) if response.content_length else None)

    async def attach(self, project: str, number: str = NUMBER, token: str = TOKEN, **more: Any) -> tuple[int, Any]:
        return await self.ask("POST", project, json={"phone_number_id": number, "waba_id": "waba", "token": token, **more})


@pytest.fixture
async def desk(bare_office: Office) -> AsyncGenerator[Desk]:
    api = NumberApi(
        bare_office.numbers, bare_office.accounts, 0.0, bare_office.wake, internal_auth(Verifier({"gateway": PUBLIC}, "connector"))
    )
    async with TestClient(TestServer(api.api.app())) as client:
        yield Desk(client)


def routes(office: Office) -> list[str | None]:
    """Who has the number, word by word as the gateways hear it; None: nobody."""
    said = list[str | None]()
    for n in range(NUMBERS.partitions):
        for record in office.bus.broker.logs[f"{NUMBERS.name}/{n}"]:
            data = json.loads(record.value)["data"] if record.value else None
            said.append(NumberAttached.model_validate(data).project_id if data else None)
    return said


def unrouted(n: int, number: str = NUMBER) -> UpdateUnrouted:
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"phone_number_id": number, "display_phone_number": "1555"},
        "contacts": [{"wa_id": ANNA, "profile": {"name": "Anna"}}],
        "messages": [{"from": ANNA, "id": f"wamid.{n}", "timestamp": "1790000000", "type": "text", "text": {"body": str(n)}}],
    }
    return UpdateUnrouted(number_id=number, waba_id="waba", change=json.dumps({"field": "messages", "value": value}), received_at=now())


async def keep(office: Office, n: int) -> None:
    update = unrouted(n)
    key = update_id(NUMBER, "unrouted", update.change)
    for _ in range(2):
        assert await office.handle(update, "unrouted", id=key) == Done()


async def test_a_number_is_connected_and_routed_once_and_a_repeated_order_renews_the_token(bare_office: Office, desk: Desk) -> None:
    status, body = await desk.attach(PROJECT)
    assert (status, body["state"]) == (201, "attaching")
    await bare_office.tell()
    await bare_office.tell()
    assert routes(bare_office) == [PROJECT]
    assert [n["state"] for n in (await desk.ask("GET", PROJECT))[1]["items"]] == ["attached"]
    assert (await desk.attach(PROJECT, token="EAArenewed"))[0] == 201
    await bare_office.tell()
    assert routes(bare_office) == [PROJECT, PROJECT]
    assert await bare_office.numbers.token(PROJECT, NUMBER) == "EAArenewed"


async def test_a_number_is_let_go_with_a_tombstone_and_forgotten_after_its_rest(bare_office: Office, desk: Desk) -> None:
    await bare_office.attach()
    assert await bare_office.numbers.detach(PROJECT, NUMBER, 3600)
    assert not await bare_office.numbers.detach(PROJECT, NUMBER, 3600)
    await bare_office.tell()
    assert routes(bare_office) == [PROJECT, None]
    assert (await desk.ask("GET", PROJECT))[1]["items"] == []
    assert await bare_office.pool.fetchval("SELECT count(*) FROM numbers") == 1, "until every gateway has forgotten it"
    await bare_office.pool.execute("UPDATE numbers SET attach_at = now()")
    await bare_office.tell()
    assert await bare_office.pool.fetchval("SELECT count(*) FROM numbers") == 0


@pytest.mark.promise("P4")
async def test_a_number_moves_by_a_tombstone_a_rest_and_then_its_new_route(bare_office: Office, desk: Desk) -> None:
    await bare_office.attach()
    assert (await desk.attach(OTHER, token="EAAother", move_from=PROJECT))[0] == 201
    await bare_office.tell(moving=3600)
    assert routes(bare_office) == [PROJECT, None]
    await bare_office.tell(moving=3600)
    assert routes(bare_office) == [PROJECT, None], "it rests"
    assert await bare_office.numbers.token(PROJECT, NUMBER) is None
    order = queued()
    await bare_office.handle(order, OTHER)
    assert await bare_office.queue.candidates(9, []) == [], "nobody sends from it meanwhile"
    await bare_office.pool.execute("UPDATE numbers SET attach_at = now()")
    await bare_office.tell(moving=3600)
    assert routes(bare_office) == [PROJECT, None, OTHER]
    assert [s.message_id for s in await bare_office.queue.candidates(9, [])] == [order.message_id]


@pytest.mark.promise("P4")
async def test_a_number_of_another_project_is_refused_and_stays_as_it_is(bare_office: Office, desk: Desk) -> None:
    await bare_office.attach()
    for more in ({}, {"move_from": "prj_c"}):
        status, body = await desk.attach(OTHER, token="EAAstolen", **more)
        assert (status, body["code"]) == (409, "number_taken")
    assert await bare_office.numbers.token(PROJECT, NUMBER) == TOKEN
    await bare_office.tell()
    assert routes(bare_office) == [PROJECT]
    assert (await desk.ask("DELETE", OTHER, f"/{NUMBER}"))[0] == 404
    assert (await desk.ask("DELETE", PROJECT, f"/{NUMBER}"))[0] == 204


@pytest.mark.promise("P4")
async def test_of_projects_that_connect_a_free_number_at_once_one_gets_it_and_keeps_it(bare_office: Office, desk: Desk) -> None:
    answers = await asyncio.gather(*(desk.attach(f"prj_{n}", token=f"EAA{n}") for n in range(8)))
    winners = [n for n, (status, _) in enumerate(answers) if status == 201]
    assert len(winners) == 1
    assert await bare_office.numbers.token(f"prj_{winners[0]}", NUMBER) == f"EAA{winners[0]}"
    await bare_office.tell()
    assert routes(bare_office) == [f"prj_{winners[0]}"]


async def test_a_number_that_is_let_go_may_be_connected_by_anybody_after_its_rest(bare_office: Office, desk: Desk) -> None:
    await bare_office.attach()
    await desk.ask("DELETE", PROJECT, f"/{NUMBER}")
    assert (await desk.attach(OTHER, token="EAAother"))[0] == 201
    for _ in range(2):
        await bare_office.tell()
    assert [r for r in routes(bare_office) if r] == [PROJECT, OTHER]
    assert routes(bare_office)[1] is None


@pytest.mark.promise("P1")
async def test_a_bus_that_is_away_keeps_what_is_to_be_told(bare_office: Office, desk: Desk) -> None:
    await desk.attach(PROJECT)
    bare_office.bus.broker.down = True
    with pytest.raises(BusUnavailable):
        await bare_office.tell()
    assert [n.state for n in await bare_office.numbers.of_project(PROJECT)] == ["attaching"]
    bare_office.bus.broker.down = False
    await bare_office.tell()
    assert routes(bare_office) == [PROJECT]


@pytest.mark.promise("P1")
@pytest.mark.promise("P6")
async def test_what_came_for_a_number_that_nobody_had_is_replayed_in_order_under_the_ids_of_a_gateway(bare_office: Office) -> None:
    for n in range(3):
        await keep(bare_office, n)
    await bare_office.tell()
    assert bare_office.bus.broker.events(INBOX) == []
    await bare_office.attach()
    await keep(bare_office, 3)
    await bare_office.tell()
    found = bare_office.bus.broker.events(INBOX)
    assert [e.id for e in found] == [message_id(NUMBER, f"wamid.{n}") for n in range(4)]
    assert {(e.projectid, e.lane) for e in found} == {(PROJECT, ANNA)}
    assert [e.data.message.text for e in found if isinstance(e.data, MessageReceived)] == ["0", "1", "2", "3"]
    assert await bare_office.pool.fetchval("SELECT count(*) FROM unrouted") == 0


@pytest.mark.promise("P1")
async def test_an_update_that_is_committed_late_is_replayed_too(bare_office: Office) -> None:
    """Its place is before those that were replayed already."""
    late = await bare_office.pool.acquire()
    await late.execute("BEGIN")
    await late.execute(
        "INSERT INTO unrouted (event_id, number_id, waba_id, change, received_at) VALUES ($1, $2, 'waba', $3, now())",
        update_id(NUMBER, "unrouted", "late"),
        NUMBER,
        unrouted(0).change,
    )
    await keep(bare_office, 1)
    kept = await bare_office.numbers.kept(NUMBER, 10)
    await late.execute("COMMIT")
    await bare_office.pool.release(late)
    await bare_office.numbers.replayed(NUMBER, [k.seq for k in kept])
    assert [json.loads(k.change)["value"]["messages"][0]["id"] for k in await bare_office.numbers.kept(NUMBER, 10)] == ["wamid.0"]


@pytest.mark.promise("P8")
async def test_a_token_is_sealed_and_stands_in_no_row_no_answer_no_log_and_no_event(bare_office: Office, desk: Desk) -> None:
    with capture_logs() as logs:
        await bare_office.register()
        said = [await desk.attach(PROJECT), await desk.ask("GET", PROJECT)]
        await bare_office.tell()
        order = queued()
        await bare_office.fault("429")
        await bare_office.handle(order)
        async with bare_office.sending():
            await bare_office.reached(order, "queued")
            await bare_office.hurry()
            await bare_office.settled(order)
        await bare_office.tell()
    tables = await bare_office.pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'connector'")
    rows = [str(r[0]) for t in tables for r in await bare_office.pool.fetch(f"SELECT t::text FROM {t['tablename']} AS t")]  # noqa: S608
    assert len(rows) >= 5, "a number, a message, two attempts, the migration"
    topics = [r.value.decode() for t in TOPICS for n in range(t.partitions) for r in bare_office.bus.broker.logs[f"{t.name}/{n}"]]
    assert topics
    everything = "\n".join([*rows, *topics, repr(said), repr(logs)])
    assert TOKEN not in everything
    assert TOKEN.encode().hex() not in everything


@pytest.mark.promise("P8")
async def test_a_sealed_token_opens_for_its_project_and_number_and_with_its_key_alone(bare_office: Office) -> None:
    await bare_office.attach()
    assert await bare_office.numbers.token(PROJECT, NUMBER) == TOKEN
    assert await bare_office.numbers.token(OTHER, NUMBER) is None
    with pytest.raises(SealBroken):
        await Numbers(bare_office.pool, KeyRing.from_json(KeyRing.new())).token(PROJECT, NUMBER)
    await bare_office.pool.execute("UPDATE numbers SET project_id = $1", OTHER)
    with pytest.raises(SealBroken):
        await bare_office.numbers.token(OTHER, NUMBER)


async def test_a_token_with_a_line_end_is_taken_without_it_and_one_that_fits_into_no_header_is_refused(
    bare_office: Office, desk: Desk
) -> None:
    assert (await desk.attach(PROJECT, token=f" {TOKEN}\n"))[0] == 201
    assert await bare_office.numbers.token(PROJECT, NUMBER) == TOKEN
    for wrong in (" ", "EAA one", "EAA\r\nX-Evil: 1", "EAA\N{SNOWMAN}", "x" * 2001):
        status, body = await desk.attach(PROJECT, token=wrong)
        assert (status, body["errors"][0]["field"]) == (422, "body.token")
        assert wrong.strip() == "" or wrong not in json.dumps(body, ensure_ascii=False)


@pytest.mark.promise("P4")
async def test_the_internal_api_answers_nobody_without_a_token_for_this_request(desk: Desk) -> None:
    path = f"/internal/projects/{PROJECT}/numbers"
    stranger = Signer("gateway", new_key()[0])
    actor = Actor("user", "u", "o", PROJECT, SCOPES)
    elsewhere = Signer("gateway", PRIVATE).sign(actor, "connector", "POST", path)
    for token in ("", "x", stranger.sign(actor, "connector", "GET", path), elsewhere):
        assert (await desk.bare("GET", path, None, token))[0] == 401
    assert (await desk.ask("GET", PROJECT, of=OTHER))[0] == 404
    assert (await desk.ask("GET", PROJECT, scopes=frozenset({"numbers:write"})))[0] == 403
