"""That a bot is writing is shown at once or not at all."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime, timedelta

import pytest
from loquat_common import metrics
from loquat_common.bus.port import Done
from loquat_connector.adapters.graph import Graph
from loquat_connector.adapters.typing import OLDEST, Typing
from loquat_events.conversations import TypingBegun

from services.connector.tests.office import ANNA, NUMBER, PROJECT, Office, now, queued
from tests.system.world import until

WAMID = "wamid.of-anna"


def begun(wamid: str = WAMID, at: datetime | None = None) -> TypingBegun:
    return TypingBegun(number_id=NUMBER, wamid=wamid, at=at or now())


def counted(outcome: str) -> float:
    return metrics.REGISTRY.get_sample_value("loquat_typing_total", {"outcome": outcome}) or 0


@pytest.fixture
async def typing(office: Office) -> AsyncGenerator[Typing]:
    graph = Graph(office.meta, "v25.0")
    await graph.start()
    made = Typing(office.numbers, graph, now)
    yield made
    await made.stop()
    await graph.stop()


async def ended(typing: Typing) -> None:
    async def idle() -> bool:
        return not typing._busy

    await until(idle, "nothing is under way", 5)


async def test_the_phone_shows_that_the_message_was_read_and_an_answer_comes_until_it_is_there(office: Office, typing: Typing) -> None:
    phone = office.world.phone(NUMBER, ANNA)
    mine = office.world.add(phone, "out", "text", "hi", {"body": "hi"}, wamid=WAMID)
    assert isinstance(await office.handle(begun(), source="/bot-runner"), Done)
    assert [t.wamid for t in office.typings] == [WAMID]
    shown = counted("shown")
    typing.begin(PROJECT, office.typings[0])
    await ended(typing)
    assert (phone.typing, mine.status, counted("shown") - shown) == (True, "read", 1)
    order = queued(text="here I am")
    await office.handle(order)
    async with office.sending():
        await office.settled(order)
    assert phone.typing is False


async def test_what_is_late_too_much_or_refused_is_dropped_and_never_tried_again(office: Office, typing: Typing) -> None:
    before = {word: counted(word) for word in ("late", "full", "refused")}
    typing.begin(PROJECT, begun(at=now() - OLDEST - timedelta(seconds=1)))
    for _ in range(9):
        typing.begin(PROJECT, begun("wamid.of-nobody"))
    typing.begin("prj_other", begun())
    await ended(typing)
    typing.begin("prj_other", begun())
    await ended(typing)
    assert {word: counted(word) - n for word, n in before.items()} == {"late": 1, "full": 2, "refused": 9}
    assert [(c["status"], c["code"]) for c in office.calls()] == [(400, 131009)] * 8
