"""What bot code imports: limits are WhatsApp's, and said in words a bot author understands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from loquat import Bot, Context, ReplyRefused, protocol, replies

TOO: list[tuple[Callable[[], Any], str]] = [
    (lambda: replies.text(""), "text is empty"),
    (lambda: replies.text("x" * 4097), "4096 are the limit"),
    (lambda: replies.buttons("x", []), "0 buttons; 1 to 3 are possible"),
    (lambda: replies.buttons("x", [(str(n), "t") for n in range(4)]), "4 buttons"),
    (lambda: replies.buttons("x", [("a", "x" * 21)]), "button title has 21 characters; 20"),
    (lambda: replies.buttons("x", [("a", "A"), ("a", "B")]), "same button id"),
    (lambda: replies.choices("x", "Open", [(str(n), "t") for n in range(11)]), "11 rows"),
    (lambda: replies.choices("x", "Open", [("a", "t" * 25)]), "row title"),
    (lambda: replies.choices("x", "Open", {"": [("a", "A")], "two": [("b", "B")]}), "needs a title"),
    (lambda: replies.image("http://x/y.png"), "https://"),
    (lambda: replies.image("https://x/y.png", "c" * 1025), "caption"),
]


@pytest.mark.parametrize(("make", "named"), TOO)
def test_what_whatsapp_would_refuse_is_refused_here_with_the_limit(make: Callable[[], Any], named: str) -> None:
    with pytest.raises(ReplyRefused, match=named):
        make()


def test_a_list_has_rows_with_and_without_descriptions_in_sections() -> None:
    made = replies.choices("Which?", "Sizes", {"Hot": [("s", "Small"), ("l", "Large", "For two")], "Cold": [("i", "Iced")]})
    assert [s["title"] for s in made["content"]["sections"]] == ["Hot", "Cold"]
    assert made["content"]["sections"][0]["rows"][1] == {"id": "l", "title": "Large", "description": "For two"}


def test_a_state_has_one_handler_and_what_has_none_goes_to_the_fallback() -> None:
    bot = Bot()

    @bot.state("unstructured")
    async def first(_ctx: Context) -> None: ...

    @bot.fallback
    async def lost(_ctx: Context) -> None: ...

    assert bot.handler("unstructured") is first
    assert bot.handler("of an older version") is lost
    assert bot.states == ["unstructured"]
    with pytest.raises(ValueError, match="has a handler already"):
        bot.state("unstructured")(lost)
    with pytest.raises(ValueError, match="a fallback already"):
        bot.fallback(first)


def test_a_handler_that_is_not_async_is_refused_with_the_mend() -> None:
    def plain(_ctx: Context) -> None: ...

    with pytest.raises(TypeError, match=r"async def plain\(ctx\)"):
        Bot().fallback(plain)  # pyright: ignore[reportArgumentType]  (the mistake)


def test_a_frame_larger_than_a_mebibyte_is_not_made() -> None:
    with pytest.raises(protocol.FrameTooLarge, match="1048576 are the limit"):
        protocol.pack(protocol.Logged(1, "info", "x" * (1 << 20)))


def test_frames_come_out_as_they_went_in() -> None:
    frame = protocol.Failed(7, "error", "KeyError", "trace")
    packed = protocol.pack(frame)
    assert protocol.HEADER.unpack(packed[:4]) == (len(packed) - 4,)
    assert protocol.WORKER_FRAMES.decode(packed[4:]) == frame
