"""Bodies that come together: one's fault is its own, and nobody is told more than the bus confirmed."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from loquat_common.bus.port import Bus, BusUnavailable, EventTooLarge
from loquat_common.failpoints import Failpoints
from loquat_events.envelope import AnyEvent
from loquat_gateway.adapters.intake import Intake, WrongSignature, signed
from loquat_gateway.adapters.routing import Routing
from loquat_gateway.domain.webhook import BodyRefused

KEYED = hmac.new(b"app-secret-1", digestmod="sha256")
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def header(raw: bytes) -> str:
    return "sha256=" + hmac.digest(b"app-secret-1", raw, "sha256").hex()


def body(*wamids: str) -> bytes:
    messages = [{"from": "4915", "id": w, "timestamp": "1790000000", "type": "text", "text": {"body": "hi"}} for w in wamids]
    value = {"metadata": {"phone_number_id": "106"}, "messages": messages}
    return json.dumps(
        {"object": "whatsapp_business_account", "entry": [{"id": "w", "changes": [{"field": "messages", "value": value}]}]}
    ).encode()


class Table:
    """A fresh routing table: every number is one project's."""

    def check(self) -> None:
        return

    def project(self, number: str) -> str | None:
        return f"prj_{number}"


class Gate:
    """A bus that confirms when it is let, and remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[list[AnyEvent]] = []
        self.open, self.called = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None
        self.too_large: str | None = None

    async def publish(self, *events: AnyEvent) -> None:
        if any(cast("Any", e.data).message.wamid == self.too_large for e in events):
            raise EventTooLarge(1)
        self.calls.append(list(events))
        self.called.set()
        await self.open.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
async def gate() -> Gate:
    return Gate()


@pytest.fixture
async def intake(gate: Gate) -> AsyncGenerator[Intake]:
    made = Intake(cast("Routing", Table()), cast("Bus", gate), Failpoints(None), lambda: NOW)
    await made.start()
    yield made
    gate.open.set()
    await made.stop()


async def kept(intake: Intake, *raws: bytes, signatures: dict[int, str] | None = None) -> list[Any]:
    given = signatures or {}
    return await asyncio.gather(*(intake.keep(KEYED, given.get(n, header(r)), r) for n, r in enumerate(raws)), return_exceptions=True)


@pytest.mark.promise("P1")
async def test_nobody_is_answered_before_the_bus_confirmed(intake: Intake, gate: Gate) -> None:
    waiting = asyncio.create_task(kept(intake, body("a"), body("b", "c")))
    await asyncio.wait_for(gate.called.wait(), 5)
    assert not waiting.done()
    gate.open.set()
    assert await waiting == [1, 2]


async def test_what_came_together_goes_in_one_call_and_in_order(intake: Intake, gate: Gate) -> None:
    gate.open.set()
    assert await kept(intake, *(body(f"m{n}") for n in range(50))) == [1] * 50
    assert len(gate.calls) == 1
    assert [cast("Any", e.data).message.wamid for e in gate.calls[0]] == [f"m{n}" for n in range(50)]


async def test_a_forged_or_broken_body_does_not_touch_those_beside_it(intake: Intake, gate: Gate) -> None:
    gate.open.set()
    answers = await kept(intake, body("a"), body("b"), b"{", b'{"object":"page"}', body("c"), signatures={1: "sha256=00"})
    assert [answers[0], answers[4]] == [1, 1]
    assert isinstance(answers[1], WrongSignature)
    assert [isinstance(a, BodyRefused) and a.status for a in answers[2:4]] == [400, 422]
    assert [cast("Any", e.data).message.wamid for e in gate.calls[0]] == ["a", "c"]


@pytest.mark.promise("P1")
async def test_when_the_bus_does_not_confirm_each_sender_hears_so_and_the_next_bodies_are_tried_anew(intake: Intake, gate: Gate) -> None:
    gate.error = BusUnavailable("not confirmed in time")
    gate.open.set()
    assert all(isinstance(a, BusUnavailable) for a in await kept(intake, body("a"), body("b")))
    gate.error = None
    assert await kept(intake, body("a")) == [1]


@pytest.mark.promise("P1")
async def test_an_event_that_the_bus_never_takes_keeps_no_other_out_and_its_body_alone_is_refused(intake: Intake, gate: Gate) -> None:
    gate.open.set()
    gate.too_large = "b"
    answers = await kept(intake, body("a"), body("b", "c"), body("d"))
    assert [answers[0], answers[2]] == [1, 1]
    assert isinstance(answers[1], EventTooLarge)
    assert [cast("Any", e.data).message.wamid for call in gate.calls for e in call] == ["a", "c", "d"]


@pytest.mark.promise("P6")
async def test_a_body_whose_events_cannot_be_written_fails_alone(intake: Intake, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = gate.publish

    async def choosy(*events: AnyEvent) -> None:
        if any(cast("Any", e.data).message.wamid == "b" for e in events):
            raise ValueError("no bytes for that")
        await publish(*events)

    monkeypatch.setattr(gate, "publish", choosy)
    gate.open.set()
    answers = await kept(intake, body("a"), body("b"), body("c"))
    assert [answers[0], answers[2]] == [1, 1]
    assert isinstance(answers[1], ValueError)


async def test_a_sender_that_hangs_up_takes_nobody_with_it(intake: Intake, gate: Gate) -> None:
    first = asyncio.create_task(intake.keep(KEYED, header(body("a")), body("a")))
    second = asyncio.create_task(intake.keep(KEYED, header(body("b")), body("b")))
    await asyncio.wait_for(gate.called.wait(), 5)
    first.cancel()
    gate.open.set()
    assert await second == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_stopping_answers_those_whose_events_are_on_their_way(intake: Intake, gate: Gate) -> None:
    waiting = asyncio.create_task(kept(intake, body("a")))
    await asyncio.wait_for(gate.called.wait(), 5)
    stopping = asyncio.create_task(intake.stop())
    await asyncio.sleep(0)
    gate.open.set()
    await stopping
    assert await waiting == [1]


@pytest.mark.parametrize("wrong", ["", "sha256=", "sha256=é", "\udcff", header(b"x").upper(), header(b"x")[7:], header(b"y")])
def test_only_the_signature_over_these_very_bytes_is_good(wrong: str) -> None:
    assert signed(KEYED, b"x", header(b"x"))
    assert not signed(KEYED, b"x", wrong)
