"""Bursts: what belongs together, and when it is over, decided from what is known to follow."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from loquat import Bot, Context, Text
from loquat.bursts import Following, NotYet, gathered
from loquat.messages import Message, read

UNSET = "unstructured"


def raw(n: int, text: str | None = "t", ago: float = 0.0) -> dict[str, Any]:
    kind, content = ("text", {"body": text}) if text is not None else ("image", {"id": "1"})
    return {"id": str(UUID(int=n)), "type": kind, "text": text, "content": content, "wamid": None, "reply_to": None, "ago": ago}


def gatherer() -> Bot:
    bot = Bot()

    @bot.text("stop")
    async def stop(_ctx: Context) -> None: ...

    @bot.on_text(burst=2)
    async def texts(_ctx: Context, _text: Text) -> None: ...

    return bot


def gather(ago: float, *more: dict[str, Any], text: str = "one") -> tuple[Message, tuple[UUID, ...]]:
    bot, event = gatherer(), read(raw(0, text))
    return gathered(lambda message: bot.rule(message, UNSET), event, Following.of({"ago": ago, "more": list(more)}))


def test_a_burst_is_over_when_the_window_has_passed_since_its_last_text() -> None:
    with pytest.raises(NotYet) as more:
        gather(3, raw(1, "two", 1.5))
    assert more.value.seconds == pytest.approx(0.5)
    event, joins = gather(4, raw(1, "two", 3), raw(2, "three", 2))
    assert isinstance(event, Text)
    assert (event.text, event.texts, event.id) == ("one\ntwo\nthree", ("one", "two", "three"), UUID(int=0))
    assert joins == (UUID(int=1), UUID(int=2))


@pytest.mark.parametrize("other", [raw(2, None), raw(2, "stop")])
def test_what_is_no_text_or_goes_to_another_handler_ends_it_at_once(other: dict[str, Any]) -> None:
    event, joins = gather(0.2, raw(1, "two", 0.1), other, raw(3, "three"))
    assert (event.text, joins) == ("one\ntwo", (UUID(int=1),))


def test_it_ends_after_ten_windows_or_twenty_texts_though_more_come() -> None:
    assert len(gather(20, raw(1, "two", 0))[1]) == 1
    assert len(gather(1, *(raw(n) for n in range(1, 25)))[1]) == 19


def test_a_text_of_another_handler_waits_for_nothing_and_a_window_is_checked() -> None:
    assert gather(0, text="stop")[1] == ()
    with pytest.raises(ValueError, match=r"0\.2 to 10"):
        Bot().on_text(burst=60)
