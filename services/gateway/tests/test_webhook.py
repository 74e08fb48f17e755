"""Meta's webhook as Meta calls it: what is not Meta's is refused, what is is kept before it is answered."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st
from loquat_common.bus.memory import MemoryBroker, MemoryBus
from loquat_common.failpoints import Failpoints
from loquat_common.http import Api
from loquat_events.catalog import ACCOUNTS, INBOX, NUMBERS, RECEIPTS, UNROUTED, parse
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.ids import fact_id
from loquat_events.numbers import NumberAttached
from loquat_gateway.adapters.intake import Intake
from loquat_gateway.adapters.routing import Routing
from loquat_gateway.domain import webhook
from loquat_gateway.http.webhook import PATIENCE, MetaApp, Webhook
from pydantic import SecretStr

NUMBER, STRANGER, SECRET, TOKEN = "106540352242922", "999999999999999", "app-secret-1", "verify-token-1"
NOW = datetime(2026, 11, 24, tzinfo=UTC)
Client = TestClient[Any, Any]


def body(number: str = NUMBER, *, messages: int = 1, statuses: int = 0, field: str = "messages") -> bytes:
    value: dict[str, Any] = {"messaging_product": "whatsapp", "metadata": {"phone_number_id": number, "display_phone_number": "1555"}}
    value["messages"] = [
        {"from": "4915", "id": f"wamid.{n}", "timestamp": "1790000000", "type": "text", "text": {"body": "hi"}} for n in range(messages)
    ]
    value["statuses"] = [
        {"id": f"wamid.s{n}", "status": "read", "timestamp": "1790000000", "recipient_id": "4915"} for n in range(statuses)
    ]
    return json.dumps(
        {"object": "whatsapp_business_account", "entry": [{"id": "waba", "changes": [{"field": field, "value": value}]}]}
    ).encode()


class World:
    """The webhook on a bus in memory, with one number attached."""

    def __init__(self, client: Client, broker: MemoryBroker) -> None:
        self.client, self.broker = client, broker

    async def post(
        self, raw: bytes, *, path: str = "/webhooks/whatsapp", secret: str = SECRET, signature: str | None = None
    ) -> tuple[int, Any]:
        signed = "sha256=" + hmac.digest(secret.encode(), raw, hashlib.sha256).hex() if signature is None else signature
        headers = {"X-Hub-Signature-256": signed, "Content-Type": "application/json"}
        async with self.client.post(path, data=BytesIO(raw), headers=headers) as response:
            return response.status, (await response.json() if response.status >= 400 else None)


@pytest.fixture
async def world() -> AsyncGenerator[World]:
    async with opened() as made:
        yield made


@asynccontextmanager
async def opened(patience: float = PATIENCE) -> AsyncGenerator[World]:
    broker = MemoryBroker()
    connector = MemoryBus("connector", broker)
    attached = NumberAttached(phone_number_id=NUMBER, project_id="prj_1", waba_id="waba", attached_at=NOW)
    await connector.publish(Event[Payload].of(attached, id=fact_id("n"), source="/connector", time=NOW, project="numbers", lane=NUMBER))
    bus = MemoryBus("gateway", broker)
    table = bus.table(NUMBERS)
    task = asyncio.create_task(table.run())
    await table.caught_up()
    apps = {
        name: MetaApp(app_secret=SecretStr(f"{SECRET}{suffix}"), verify_token=SecretStr(TOKEN))
        for name, suffix in (("default", ""), ("second", "b"))
    }
    api = Api("test", "1", body_limit=webhook.BODY_LIMIT)
    intake = Intake(Routing(table), bus, Failpoints(None), lambda: NOW)
    await intake.start()
    Webhook(apps, intake, patience=patience).add_to(api)
    async with TestClient(TestServer(api.app())) as client:
        yield World(client, broker)
    await intake.stop()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_challenge_is_answered_as_it_came_to_who_knows_the_token_alone(world: World) -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": TOKEN, "hub.challenge": "1158201444"}
    async with world.client.get("/webhooks/whatsapp", params=query) as response:
        assert (response.status, await response.text()) == (200, "1158201444")
    for wrong in ({"hub.verify_token": "no"}, {"hub.mode": "unsubscribe"}):
        async with world.client.get("/webhooks/whatsapp", params={**query, **wrong}) as response:
            assert response.status == 403
    async with world.client.get("/webhooks/whatsapp/third", params=query) as response:
        assert response.status == 404


@pytest.mark.promise("P1")
async def test_a_body_is_kept_before_it_is_answered_and_the_same_body_has_the_same_ids(world: World) -> None:
    assert await world.post(body(messages=2, statuses=1)) == (200, None)
    first = [e.id for e in (*world.broker.events(INBOX), *world.broker.events(RECEIPTS))]
    assert await world.post(body(messages=2, statuses=1)) == (200, None)
    assert len(first) == 3
    assert {e.id for e in (*world.broker.events(INBOX), *world.broker.events(RECEIPTS))} == set(first)
    assert {e.projectid for e in world.broker.events(INBOX)} == {"prj_1"}


@pytest.mark.promise("P1")
async def test_when_the_bus_does_not_confirm_it_is_503_and_meta_comes_again(world: World) -> None:
    world.broker.down = True
    status, problem = await world.post(body())
    assert (status, problem["code"]) == (503, "unavailable")
    world.broker.down = False
    assert (await world.post(body()))[0] == 200


async def test_a_wrong_or_missing_signature_is_401_and_leaves_no_trace(world: World) -> None:
    for signature in ("", "sha256=00", "sha1=" + "0" * 40, "sha256=\N{SNOWMAN}".encode().decode("latin-1")):
        status, problem = await world.post(body(), signature=signature)
        assert (status, problem["code"]) == (401, "wrong_signature")
    assert (await world.post(body(), secret="another"))[0] == 401
    assert world.broker.events(INBOX) == []


async def test_each_app_has_its_own_secret(world: World) -> None:
    assert (await world.post(body(), path="/webhooks/whatsapp/second", secret=f"{SECRET}b"))[0] == 200
    assert (await world.post(body(), path="/webhooks/whatsapp/second"))[0] == 401
    assert (await world.post(body(), path="/webhooks/whatsapp/third"))[0] == 404


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"{", 400, "malformed_json"),
        (b"[" * 100_000, 400, "malformed_json"),
        (b'{"object": "page"}', 422, "not_whatsapp"),
        (b"[]", 422, "not_whatsapp"),
        (b" " * (webhook.BODY_LIMIT + 1), 413, "too_large"),
    ],
)
async def test_what_is_none_of_whatsapps_gets_its_problem(world: World, raw: bytes, status: int, code: str) -> None:
    answered, problem = await world.post(raw)
    assert (answered, problem["code"]) == (status, code)


async def claim(client: Client, stack: AsyncExitStack, size: int, begun: bytes = b"") -> asyncio.StreamReader:
    """A connection that announces a body and sends only its beginning."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    stack.callback(writer.close)
    writer.write(b"POST /webhooks/whatsapp HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + begun)
    await writer.drain()
    return reader


@pytest.mark.promise("P1")
async def test_connections_that_announce_much_and_send_nothing_keep_nobody_out(world: World) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(64):  # together they announce twice what may be under way
            await claim(world.client, stack, 1 << 20)
        assert (await world.post(body()))[0] == 200


async def test_a_body_that_does_not_arrive_in_time_is_let_go_and_gives_back_what_it_took() -> None:
    async with opened(patience=0.05) as world, AsyncExitStack() as stack:
        readers = [await claim(world.client, stack, webhook.LARGEST, b" " * 1_000_000) for _ in range(20)]
        answers = [await asyncio.wait_for(r.readline(), 5) for r in readers]
        assert {a.split()[1] for a in answers} == {b"408"}
        readers = [await claim(world.client, stack, webhook.LARGEST, b" " * 1_000_000) for _ in range(20)]
        assert {(await asyncio.wait_for(r.readline(), 5)).split()[1] for r in readers} == {b"408"}, "not 503"


async def test_more_than_may_be_under_way_is_refused_at_once_and_there_is_room_again_afterwards(world: World) -> None:
    async with AsyncExitStack() as stack:
        readers = [await claim(world.client, stack, webhook.LARGEST, b" " * (webhook.LARGEST - 1)) for _ in range(11)]
        first = asyncio.as_completed([r.readline() for r in readers], timeout=5)
        assert (await next(first)).split()[1] == b"503"
    assert (await world.post(body()))[0] == 200


@pytest.mark.parametrize("size", [webhook.BODY_LIMIT + 1, 33 << 20])
async def test_a_body_that_announces_too_much_is_refused_before_it_is_read(world: World, size: int) -> None:
    async with AsyncExitStack() as stack:
        reader = await claim(world.client, stack, size)
        assert (await asyncio.wait_for(reader.readline(), 5)).split()[1] == b"413"


@pytest.mark.promise("P6")
async def test_updates_of_a_number_that_nobody_attached_and_of_unknown_fields_are_kept(world: World) -> None:
    assert (await world.post(body(STRANGER)))[0] == 200
    assert (await world.post(body(field="from_the_future")))[0] == 200
    assert (
        await world.post(
            b'{"object": "whatsapp_business_account", "entry": [{"id": "waba", "changes": [{"field": "flows", "value": {}}]}]}'
        )
    )[0] == 200
    assert len(world.broker.events(UNROUTED)) == 1
    assert {e.lane for e in world.broker.events(ACCOUNTS)} == {"from_the_future", "flows"}


async def test_a_body_of_a_thousand_updates_is_one_publish(world: World) -> None:
    assert (await world.post(body(messages=1_000)))[0] == 200
    assert len(world.broker.events(INBOX)) == 1_000


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(), max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "changes", "field", "value", "metadata", "messages", "x"]), inner, max_size=4)
    ),
    max_leaves=15,
)


@pytest.mark.promise("P6")
@given(JSON)
def test_no_body_of_whatsapps_is_ever_too_strange_to_be_kept(entry: Any) -> None:
    raw = json.dumps({"object": "whatsapp_business_account", "entry": entry}).encode()
    made = webhook.events(webhook.parse(raw), {NUMBER: "prj_1"}.get, NOW)
    assert [e.id for e in made] == [e.id for e in webhook.events(webhook.parse(raw), {NUMBER: "prj_1"}.get, NOW)]
    for event in made:
        json.loads(event.to_json())


def nested(levels: int) -> Any:
    value: Any = "x"
    for n in range(levels):
        value = [value] if n % 2 else {"body": value}
    return value


@pytest.mark.promise("P6")
@given(st.integers(0, 1100), st.sampled_from(["text", "field", "status", "entry", "context", "contact", "hologram"]), st.booleans())
def test_whatever_is_nested_however_deep_is_kept_and_can_be_read_again_or_refused(levels: int, place: str, half: bool) -> None:
    deep, strange = nested(levels), {"name": "\ud800"} if half else {}
    message: dict[str, Any] = {"from": "4915", "id": "w", "timestamp": "1", "type": place, **strange}
    message |= {place: deep} if place in {"text", "hologram", "context"} else {}
    value: dict[str, Any] = {"metadata": {"phone_number_id": NUMBER}, "messages": [message]}
    value |= {"statuses": [deep]} if place == "status" else {"contacts": deep} if place == "contact" else {}
    change = {"field": deep if place == "field" else "messages", "value": value}
    entry = deep if place == "entry" else [{"id": "waba", "changes": [change]}]
    raw = written({"object": "whatsapp_business_account", "entry": entry})
    made = list[AnyEvent]()
    with suppress(webhook.BodyRefused) if levels > 800 else nullcontext():  # about the end of what Python itself reads
        body = webhook.parse(raw)
        made = [*webhook.events(body, {NUMBER: "prj_1"}.get, NOW), *webhook.events(body, lambda _: None, NOW)]
    for event in made:
        assert parse(event.to_json()).data == event.data


def written(body: Any) -> bytes:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        return json.dumps(body).encode()
    finally:
        sys.setrecursionlimit(limit)
