"""Mistakes in a bot's declarations are refused when it loads, with file and line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loquat import Bot, Context, Image, Message
from loquat.testing import BotTester

HERE = Path(__file__).name


async def one(ctx: Context) -> None:
    del ctx


async def two(ctx: Context, found: Any) -> None:
    del ctx, found


async def three(ctx: Context, number: str, more: str) -> None:
    del ctx, number, more


def plain(ctx: Context) -> None:
    del ctx


TWICE: list[tuple[str, Callable[[Bot], Any], str]] = [
    ("a state", lambda b: b.state("s")(one), "the state 's' has a handler already"),
    ("entering", lambda b: b.on_enter("s")(one), "entering 's' has a handler already"),
    ("a button", lambda b: b.button("x")(one), 'button "x" has a handler already'),
    ("a beginning", lambda b: b.row(prefix="x:")(one), 'row "x:..." has a handler already'),
    ("words that differ in case", lambda b: b.text("Yes!" if b.states else "yes", state="s")(one), "text \"yes\" in the state 's' has"),
    ("a pattern", lambda b: b.pattern("x")(one), "text like x has a handler already"),
    ("a kind", lambda b: b.on(Image)(one), "any Image has a handler already"),
    ("a command", lambda b: b.command("help")(one), "/help has a handler already"),
    ("a fallback", lambda b: b.fallback(one), "there is a fallback already"),
    ("unknown states", lambda b: b.unknown_state(one), "there is a handler of unknown states already"),
    ("an error handler", lambda b: b.error(two), "there is an error handler already"),
]
WRONG: list[tuple[str, Callable[[Bot], Any], str]] = [
    ("not async", lambda b: b.text("x")(plain), "a handler is `async def plain(ctx)`"),  # pyright: ignore[reportArgumentType, reportUnknownLambdaType]
    ("one parameter too many", lambda b: b.state("s")(two), "a handler is `async def two(ctx)`, not `two(ctx"),  # pyright: ignore[reportArgumentType, reportUnknownLambdaType]
    ("two parameters too many", lambda b: b.on(Message)(three), "`async def three(ctx, message)` or `async def three(ctx)`"),  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownLambdaType]
    ("a group without a parameter", lambda b: b.pattern("(?P<number>.)")(one), "`async def one(ctx, number)`"),
    ("a parameter without a group", lambda b: b.pattern("(?P<number>.)")(three), "`async def three(ctx, number)`"),
    ("a group that is called as the context", lambda b: b.pattern("(?P<ctx>.)")(one), "`async def one(ctx, ctx)`"),
    ("an error handler without the error", lambda b: b.error(one), "`async def one(ctx, error)`"),  # pyright: ignore[reportArgumentType, reportUnknownLambdaType]
    ("a middleware that cannot go on", lambda b: b.middleware(one), "`async def one(ctx, call_next)`"),  # pyright: ignore[reportArgumentType, reportUnknownLambdaType]
    ("forgotten parentheses", lambda b: b.state(one), "write @bot.state('name of the state')"),  # pyright: ignore[reportArgumentType]
]
NONSENSE: list[tuple[Callable[[Bot], Any], str]] = [
    (lambda b: b.state(""), "a state is a text of 1 to 60 characters"),
    (lambda b: b.text(), "takes words"),
    (lambda b: b.text("!?"), "takes words"),
    (lambda b: b.button(), "one of both"),
    (lambda b: b.button("x", prefix="y"), "one of both"),
    (lambda b: b.pattern("("), "is no regular expression"),
    (lambda b: b.command("two words"), "words of letters"),
    (lambda b: b.on(str), "a kind of message"),  # pyright: ignore[reportArgumentType, reportUnknownLambdaType]
]


@pytest.mark.parametrize(("declare", "said"), [t[1:] for t in TWICE], ids=[t[0] for t in TWICE])
def test_what_is_declared_twice_is_refused_with_both_places(declare: Callable[[Bot], Any], said: str) -> None:
    bot = Bot()
    declare(bot)
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        declare(bot)
    assert re.match(rf"{HERE}, line \d+: .* already: (one|two), {HERE}, line \d+$", _short(str(refused.value)))


@pytest.mark.parametrize(("declare", "said"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_a_handler_that_could_not_be_called_is_refused_with_its_place(declare: Callable[[Bot], Any], said: str) -> None:
    with pytest.raises(TypeError, match=re.escape(said)) as refused:
        declare(Bot())
    assert re.match(rf"{HERE}, line \d+: ", _short(str(refused.value)))


@pytest.mark.parametrize(("declare", "said"), NONSENSE)
def test_names_that_are_none_are_refused(declare: Callable[[Bot], Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(said)):
        declare(Bot())


def test_a_file_is_named_as_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "menu.py").write_text("def add(bot):\n    @bot.state('s')\n    async def first(ctx): ...\n")
    (tmp_path / "bot.py").write_text("from loquat import Bot\nfrom parts.menu import add\nbot = Bot()\nadd(bot)\nadd(bot)\n")
    with pytest.raises(ValueError, match=r"^parts/menu.py, line 2: the state 's' has a handler already: first, parts/menu.py, line 2$"):
        BotTester.load(tmp_path)


def test_states_are_those_with_a_handler_a_rule_or_something_to_do_on_entering() -> None:
    bot = Bot()
    bot.state("b")(one)
    bot.on_enter("a")(one)
    bot.text("x", state=["c", "d"])(one)
    assert bot.states == ["a", "b", "c", "d"]
    assert [(d.when, d.state, d.handler) for d in bot.declared] == [
        ('text "x"', "c", "one"),
        ('text "x"', "d", "one"),
        ("anything else", "b", "one"),
        ("on entering", "a", "one"),
    ]


def test_what_a_bot_needs_is_gathered_by_table() -> None:
    bot = Bot()
    bot.needs("orders", ["item", "paid"])
    bot.needs("rooms")
    bot.needs("orders", "guest")
    assert bot.needed == {"orders": ("item", "paid", "guest"), "rooms": ()}


@pytest.mark.parametrize("given", [("", []), ("x" * 64, []), ("t", [""]), ("t", [3]), (None, [])])
def test_a_need_that_is_no_name_is_refused(given: tuple[Any, Any]) -> None:
    with pytest.raises(TypeError, match=r"such as bot\.needs\('bookings', \['guest'\]\)"):
        Bot().needs(*given)


def test_a_bot_cannot_need_more_than_fits_in_a_frame() -> None:
    with pytest.raises(ValueError, match="more than 500 tables and columns"):
        Bot().needs("t", [f"c{n}" for n in range(500)])


def _short(said: str) -> str:
    """Places as they are where the folder of this file is imported from."""
    return re.sub(r"\S*/(?=test_\w+\.py)", "", said)
