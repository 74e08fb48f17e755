"""Tools as a bot's author and a language model meet them: declared, described, called, refused."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from loquat import Bot, Context, ScheduleContext, ToolRefused, protocol
from loquat.testing import BotTester
from loquat.tools import LARGEST_ARGUMENTS, MOST_TOOLS, Tools, tool

HERE = Path(__file__).name
DAY = date(2026, 1, 5)


class Room(Enum):
    INSIDE = "inside"
    GARDEN = "garden"


@dataclass
class Guest:
    name: str
    age: int | None = None


async def find_slot(ctx: Context, day: date, people: int = 2) -> list[str]:
    """Free times of a day.

    In the order of the day.

    Args:
        day: which day,
            in the restaurant's zone
        people (int): how many sit at the table

    Raises:
        KeyError: it is closed
    """
    del ctx
    return [f"{day.isoformat()} {hour}:00 for {people}" for hour in (18, 20)]


async def everything(
    _: object,
    day: date,
    at: datetime,
    booking: UUID,
    share: float,
    loud: bool,
    room: Room,
    meal: Literal["lunch", "dinner"],
    guests: list[Guest],
    notes: dict[str, str] = {},  # noqa: B006  (read only)
    price: Decimal | None = None,
) -> dict[str, Any]:
    """All that JSON can give."""
    return {
        "day": day,
        "at": at,
        "booking": booking,
        "share": share,
        "loud": loud,
        "room": room,
        "meal": meal,
        "guests": guests,
        "notes": notes,
        "price": price,
    }


FIND, EVERYTHING = tool(find_slot), tool(everything)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
ARGUMENTS = st.fixed_dictionaries(
    {
        "day": st.dates(),
        "at": st.datetimes(timezones=st.just(UTC)),
        "booking": st.uuids(),
        "share": st.floats(allow_nan=False, allow_infinity=False),
        "loud": st.booleans(),
        "room": st.sampled_from(Room),
        "meal": st.sampled_from(["lunch", "dinner"]),
        "guests": st.lists(st.builds(Guest, TEXTS, st.none() | st.integers()), max_size=3),
    },
    optional={"notes": st.dictionaries(TEXTS, TEXTS, max_size=3), "price": st.none() | st.decimals(allow_nan=False, allow_infinity=False)},
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(["name", "age"]), inner, max_size=3),
    max_leaves=8,
)


def test_a_model_is_told_what_a_tool_is_for_and_what_it_takes() -> None:
    assert (FIND.name, FIND.description) == ("find_slot", "Free times of a day.\n\nIn the order of the day.")
    assert FIND.parameters == {
        "type": "object",
        "properties": {
            "day": {"type": "string", "format": "date", "description": "which day, in the restaurant's zone"},
            "people": {"type": "integer", "description": "how many sit at the table", "default": 2},
        },
        "required": ["day"],
        "additionalProperties": False,
    }
    assert EVERYTHING.parameters["properties"]["room"] == {"$ref": "#/$defs/Room"}
    assert EVERYTHING.parameters["$defs"]["Room"]["enum"] == ["garden", "inside"]
    Draft202012Validator.check_schema(EVERYTHING.parameters)


async def test_a_handler_calls_a_tool_with_what_a_model_answered_and_a_schedule_may_too() -> None:
    bot = Bot()
    bot.tool(find_slot)

    @bot.fallback
    async def answer(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        try:
            ctx.reply_text("\n".join(await ctx.tools.call(next(t.name for t in ctx.tools), ctx.event.text or "")))
        except ToolRefused as refused:
            ctx.reply_text(str(refused))

    @bot.schedule("0 9 * * *")
    async def morning(ctx: ScheduleContext) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.log.info((await ctx.tools.call("find_slot", {"day": ctx.now.date()}))[0])

    tester = BotTester(bot)
    await tester.send('{"day": "2026-01-05", "people": 4}')
    assert tester.last.text == "2026-01-05 18:00 for 4\n2026-01-05 20:00 for 4"
    await tester.send('{"people": "four"}')
    assert tester.last.text == "the tool 'find_slot' cannot be called like that: day: it is missing; people: Expected `int`, got `str`"
    await tester.run_schedule("morning")
    assert tester.log[-1].text == "2026-01-05 18:00 for 2"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "day: it is missing"),
        ({"day": "tomorrow"}, "day: Invalid RFC3339 encoded date"),
        ({"day": DAY, "people": "2"}, "people: Expected `int`, got `str`"),
        ({"day": DAY, "people": True}, "people: Expected `int`, got `bool`"),
        ({"day": DAY, "person": 2}, "'person' is no argument of it"),
        ("{", "are no JSON"),
        ("[1]", "as a JSON object"),
        ({"day": DAY, "people": float("nan")}, "cannot be kept as JSON"),
        ({"day": "\ud800"}, "half a character"),
        ({"day": "x" * LARGEST_ARGUMENTS}, "65,536 are the limit"),
    ],
)
async def test_arguments_that_do_not_fit_are_named_and_the_tool_is_not_called(arguments: Any, said: str) -> None:
    with pytest.raises(ToolRefused, match=re.escape(said)):
        await Tools({"find_slot": FIND}, None).call("find_slot", arguments)


async def test_a_place_within_an_argument_is_named_too_and_so_is_a_tool_that_is_not_there() -> None:
    with pytest.raises(ToolRefused, match=r"guests\[1\]\.name: Expected `str`, got `int`"):
        EVERYTHING.read({"guests": [{"name": "Ada"}, {"name": 1}]})
    with pytest.raises(ToolRefused, match="no tool 'fly'; there are: find_slot"):
        await Tools({"find_slot": FIND}, None).call("fly", {})


@given(ARGUMENTS)
@settings(max_examples=60)
async def test_what_goes_in_as_json_comes_out_typed_and_fits_the_schema(arguments: dict[str, Any]) -> None:
    tools = Tools({"everything": EVERYTHING}, None)
    told = await tools.call("everything", arguments)
    assert EVERYTHING.read(json.dumps({k: told[k] for k in arguments})) == arguments
    given_ = {k: told[k] for k in arguments}
    assert not [*Draft202012Validator(EVERYTHING.parameters).iter_errors(given_)]  # pyright: ignore[reportUnknownMemberType]


@given(st.dictionaries(st.sampled_from([*EVERYTHING.types, "other"]), JSON, max_size=4))
@settings(max_examples=100)
def test_whatever_a_model_makes_up_is_refused_by_name_or_fits(arguments: dict[str, Any]) -> None:
    with suppress(ToolRefused):
        assert EVERYTHING.read(arguments).keys() == arguments.keys()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("async def f(ctx, day): ...", "the parameter 'day' needs a type, such as `day: str`"),
        ("async def f(ctx, day: Bot): ...", "the parameter 'day' has a type that JSON cannot give"),
        ("async def f(ctx, day: 'Nowhere'): ...", "the parameter 'day': its type cannot be read: name 'Nowhere' is not defined"),
        ("async def f(ctx, *days: date): ...", "the parameter 'days' cannot be given by name"),
        ("async def f(ctx, n: int = 'two'): ...", "the parameter 'n': its default 'two' does not fit: Expected `int`, got `str`"),
        ("async def f(*, ctx): ...", "a tool takes the context first: `async def f(ctx, ...)`"),
        ("async def f(): ...", "a tool takes the context first: `async def f(ctx, ...)`"),
        ("async def gr\u00fc\u00dfe(ctx): ...", "a tool's name has 1 to 64 plain letters"),
        ("def f(ctx): ...", "a tool is `async def f(ctx, ...)`"),
        ("async def f(ctx, day: date):\n  ':param dya: which'", "the docstring of 'f' describes 'dya', which is no parameter of it"),
    ],
)
def test_a_declaration_that_is_none_is_refused_with_file_and_line(source: str, said: str) -> None:
    names: dict[str, Any] = {"Bot": Bot, "date": date}
    exec(compile(source, "bot.py", "exec"), names)  # noqa: S102
    with pytest.raises(TypeError, match=rf"^bot\.py, line 1: {re.escape(said)}"):
        Bot().tool(list(names.values())[-1])


def test_a_bot_has_so_many_tools_each_once_and_they_fit_in_the_frame_that_tells_of_them() -> None:
    bot = Bot()
    for number in range(MOST_TOOLS):

        async def made(ctx: Context, day: date) -> None: ...

        made.__name__, made.__doc__ = f"tool_{number}", "x" * 7000
        bot.tool(made)
    with pytest.raises(ValueError, match="at most 64 tools"):
        bot.tool(find_slot)
    told = [protocol.Tool(t.name, t.description, t.parameters) for t in bot.tools.values()]
    frame = protocol.WORKER_FRAMES.decode(protocol.pack(protocol.Ready([], tools=told))[protocol.HEADER.size :])
    assert isinstance(frame, protocol.Ready)
    assert [t.name for t in frame.tools] == list(bot.tools)
    again = Bot()
    again.tool(find_slot)
    with pytest.raises(ValueError, match="the tool 'find_slot' is there already"):
        again.tool(find_slot)


async def test_what_a_tool_gives_is_as_json_has_it_or_the_author_is_told_where() -> None:
    class Row:
        def items(self) -> list[tuple[str, Any]]:
            return [("day", DAY), ("price", Decimal("1.50"))]

    async def rows(_: object) -> list[Any]:
        return [Row(), Guest("Ada"), {1: Room.GARDEN}]

    async def odd(_: object) -> object:
        return object()

    tools = Tools({"rows": tool(rows), "odd": tool(odd)}, None)
    assert await tools.call("rows", "") == [{"day": "2026-01-05", "price": "1.50"}, {"name": "Ada", "age": None}, {"1": "garden"}]
    with pytest.raises(TypeError, match=rf"{re.escape(HERE)}, line \d+: what 'odd' gives is no JSON: no object can be"):
        await tools.call("odd", {})
