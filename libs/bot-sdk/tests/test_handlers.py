"""Which handler a message goes to, and what it is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from loquat import Bot, Context, FlowReply, Image, Media, Message, ReplyRefused, replies
from loquat.bot import Handler
from loquat.testing import BotTester, Line

EVERY = Path(__file__).parent / "bots" / "every"
Send = Callable[[BotTester], Awaitable[object]]

ANSWERS: list[tuple[str, str, Send, str]] = [
    ("a command, with what follows it", "unstructured", lambda t: t.send(" /HELP  sizes of cups "), "help about sizes of cups"),
    ("a command by its other name", "unstructured", lambda t: t.send("/info"), "help about everything"),
    ("a command that is none", "unstructured", lambda t: t.send("/helpful"), "What can I do?"),
    ("words, whatever their case and marks", "unstructured", lambda t: t.send("  SIZES!? "), "Which?"),
    ("words within others", "unstructured", lambda t: t.send("which sizes"), "What can I do?"),
    ("words of this state", "collect", lambda t: t.send("Stop   it."), "cancelled"),
    ("words of another state", "unstructured", lambda t: t.send("stop it"), "What can I do?"),
    ("a pattern, with its groups", "unstructured", lambda t: t.send("my ORDER 17 for Ada"), "order 17 of Ada"),
    ("a pattern whose second group found nothing", "collect", lambda t: t.send("order 17"), "order 17 of None"),
    ("a compiled pattern, with its own flags", "collect", lambda t: t.send("ABC"), "a code"),
    ("a compiled pattern that does not fit", "collect", lambda t: t.send("abc"), "collected abc"),
    ("a picture", "unstructured", lambda t: t.send_image("look", media_id="7"), "picture 7: look"),
    ("a file of a kind without a handler", "unstructured", lambda t: t.send_media("document", mime_type="text/plain"), "file text/plain"),
    ("a file in a state that says what becomes of files", "collect", lambda t: t.send_image(), "no files here"),
    ("a sound, narrower than a file though declared later", "unstructured", lambda t: t.send_media("audio"), "sound"),
    ("a place", "unstructured", lambda t: t.send_location(1.5, 2.5), "at 4.0"),
    ("anything else goes to the state", "collect", lambda t: t.send_contact("Bob", "+49"), "collected None"),
    ("a state that nobody declares", "of v1", lambda t: t.send("hi"), "lost in of v1"),
    ("a rule in a state that nobody declares", "of v1", lambda t: t.send("sizes"), "Which?"),
    ("a state that only rules and no handler know", "other", lambda t: t.send("hi"), "text of 2 in other"),
    ("a type that nobody knows yet", "other", lambda t: t.send_raw("hologram", {"depth": 3}), "hologram in other"),
]


@pytest.fixture
def tester() -> BotTester:
    return BotTester.load(EVERY)


@pytest.mark.parametrize(("state", "send", "said"), [a[1:] for a in ANSWERS], ids=[a[0] for a in ANSWERS])
async def test_a_message_goes_to_the_handler_that_says_most_about_it(state: str, send: Send, said: str) -> None:
    tester = BotTester.load(EVERY, state=state)
    await send(tester)
    assert tester.last.text == said


async def test_a_form_goes_by_its_name_in_this_state_in_any_or_to_whoever_takes_all() -> None:
    bot = Bot()

    @bot.on_flow("booking", "order", state="unstructured")
    async def booked(ctx: Context, answer: FlowReply) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.reply_text(f"{answer.flow} {answer.token} {answer.data}")
        ctx.goto("other")

    @bot.on_flow("booking")
    async def elsewhere(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.reply_text("elsewhere")

    @bot.on_flow()
    async def any_form(ctx: Context, answer: FlowReply) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.reply_text(f"any {answer.flow} {answer.problem}")

    tester = BotTester(bot)
    assert [(await tester.submit_flow(name, {"n": 1}))[0].text for name in ("order:7", "booking", "order", None, "bookings")] == [
        "order order:7 {'n': 1}",
        "elsewhere",
        "any order None",
        "any None None",
        "any bookings None",
    ]
    for wrong in ("", "a:b", "x" * 61):
        with pytest.raises(TypeError, match="without a colon"):
            bot.on_flow(wrong)


async def test_a_form_is_sent_as_the_platform_takes_it_and_its_answer_comes_back_by_its_name() -> None:
    made = replies.flow("Book a table", "Open", "booking", token="7f", screen="WHEN", data={"days": [1, 2]})
    content = {"flow_cta": "Open", "flow_token": "booking:7f", "flow_name": "booking", "screen": "WHEN", "data": {"days": [1, 2]}}
    assert made.wire() == {"type": "flow", "text": "Book a table", "content": content}
    assert replies.flow("?", "Open", "booking", id="123")["content"] == {"flow_cta": "Open", "flow_token": "booking", "flow_id": "123"}
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"name": "a:b"}, "colon"),
        ({"data": {"x": 1}}, "for the screen"),
        ({"screen": "X", "data": {}}, "something in it"),
    ]
    for wrong, why in wrongs:
        given: dict[str, Any] = {"name": "booking", **wrong}
        with pytest.raises(ReplyRefused, match=why):
            replies.flow("?", "Open", **given)
    with pytest.raises(ReplyRefused, match="flow button has 31 characters"):
        replies.flow("?", "x" * 31, "booking")


async def test_a_button_goes_by_its_id_before_its_beginning_and_by_the_longer_beginning(tester: BotTester) -> None:
    await tester.send("hi")
    await tester.tap("slot:9")
    assert tester.last.text == "slot 9"
    await tester.tap("slot:day:2")
    assert tester.last.text == "day 2"
    await tester.tap("book")
    assert (tester.last.text, tester.state) == ("Your name?", "collect")


async def test_a_row_hands_over_its_id(tester: BotTester) -> None:
    await tester.send("sizes")
    await tester.pick("large")
    assert tester.last.text == "size large"


async def test_middleware_stands_around_handlers_in_the_order_of_the_code_and_may_end_the_call(tester: BotTester) -> None:
    await tester.send("hi")
    assert [line.text for line in tester.log] == ["outer in", "inner in", "outer out"]
    tester.log.clear()
    assert await tester.send("silence") == ()
    assert [line.text for line in tester.log] == ["outer in", "outer out"]


async def test_of_two_rules_of_one_sort_that_of_the_state_comes_first_then_the_order_of_the_code() -> None:
    bot = Bot()
    for number, (expression, state) in enumerate([("a", None), ("a|b", None), ("b", "s")]):
        bot.pattern(expression, state=state)(saying(str(number)))
    bot.on(Message)(saying("message"))
    bot.on(Media)(saying("media"))
    bot.on(Image)(saying("image"))
    for state, text, said in (("s", "ab", "2"), ("s", "a", "0"), ("t", "ba", "0"), ("t", "b", "1"), ("s", "c", "message")):
        assert (await BotTester(bot, state=state).send(text))[0].text == said, (state, text)
    assert (await BotTester(bot).send_image())[0].text == "image"
    assert (await BotTester(bot).send_media("sticker"))[0].text == "media"


async def test_the_order_of_all_sorts_is_the_one_that_is_documented() -> None:
    """Everything fits the text "/go": whatever comes first is taken away, and the next one answers."""
    text: list[tuple[str, Callable[[Bot, Handler], object]]] = [
        ("command", lambda b, h: b.command("go")(h)),
        ("words", lambda b, h: b.text("/go")(h)),
        ("pattern", lambda b, h: b.pattern("go")(h)),
        ("kind", lambda b, h: b.on(Message)(h)),
        ("state", lambda b, h: b.state("s")(h)),
        ("fallback", lambda b, h: b.fallback(h)),
        ("initial", lambda b, h: b.state("unstructured")(h)),
    ]
    for first in range(len(text)):
        bot = Bot()
        for name, declare in reversed(text[first:]):
            declare(bot, saying(name))
        assert (await BotTester(bot, state="s").send("/go"))[0].text == text[first][0]


async def test_what_nobody_takes_is_over_with_a_warning_that_says_what_to_add() -> None:
    bot = Bot()
    bot.text("hi")(saying("hello"))
    tester = BotTester(bot)
    assert await tester.react("\N{THUMBS UP SIGN}") == ()
    assert tester.log == [Line("warning", "nobody takes this Reaction in the state 'unstructured': add @bot.fallback")]
    assert tester.version == 1


def saying(text: str) -> Handler:
    async def handler(ctx: Context) -> None:
        ctx.reply_text(text)

    return handler
