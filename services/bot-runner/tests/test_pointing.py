"""Who is answered by which version, and where the pointer goes: decided without touching anything."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loquat_bot_runner.domain import pointing
from loquat_bot_runner.domain.canary import Tally, verdict
from loquat_bot_runner.domain.configuration import Setting
from loquat_bot_runner.domain.difference import difference
from loquat_bot_runner.domain.gate import Loaded, objections, overstated
from loquat_bot_runner.domain.pointer import Choice, choose, needs_opening, share_of, versions
from loquat_bot_runner.domain.pointing import CannotPoint, Here, Pointing
from loquat_bot_runner.domain.tools import Tool
from loquat_events.bots import BotDeployed, Canary, CanaryStep

NOW = datetime(2026, 11, 26, tzinfo=UTC)
HOUR = timedelta(hours=1)
OLD, NEW = "a" * 64, "b" * 64


def deployed(*steps: tuple[int, datetime], opened: bool = False, testers: dict[str, str] | None = None) -> BotDeployed:
    canary = Canary(version=NEW, steps=tuple(CanaryStep(percent=p, since=at) for p, at in steps), open=opened) if steps else None
    return BotDeployed(project_id="p", version=OLD, deployment_id="d", deployed_by="k", at=NOW, canary=canary, testers=testers or {})


@given(st.uuids(), st.integers(1, 99), st.integers(1, 99), st.integers(-5, 5), st.integers(0, 5))
def test_a_conversation_keeps_its_version_whatever_happens_to_the_canarys_percentage(
    contact: UUID, first: int, later: int, opened: int, when: int
) -> None:
    """Before a step, after it, and after any later one, a conversation that is open is answered by the same."""
    opened_at = NOW + opened * HOUR
    one = deployed((first, NOW))
    two = deployed((first, NOW), (later, max(NOW, opened_at) + when * HOUR + timedelta(seconds=5)))
    assert choose(one, contact, opened_at) == choose(two, contact, opened_at)
    if opened_at < NOW:
        assert choose(one, contact, opened_at).version == OLD


@given(st.uuids(), st.integers(1, 99))
def test_whether_the_opening_matters_is_known_before_anybody_is_asked(contact: UUID, percent: int) -> None:
    pointer = deployed((percent, NOW))
    if not needs_opening(pointer, contact):
        assert choose(pointer, contact, None) == choose(pointer, contact, NOW + HOUR) == choose(pointer, contact, NOW - HOUR)
    assert not needs_opening(deployed((percent, NOW), opened=True), contact)
    assert not needs_opening(deployed(), contact)


def test_a_canary_takes_about_its_share_and_each_canary_others() -> None:
    contacts = [uuid4() for _ in range(4000)]
    taken = {c for c in contacts if choose(deployed((10, NOW)), c, NOW).why == "canary"}
    assert 300 < len(taken) < 500
    other = Canary(version=OLD, steps=())
    assert len({c for c in contacts if share_of(other, c) < 10} & taken) < 100


def test_a_canary_that_takes_open_conversations_needs_to_know_no_opening() -> None:
    contact = next(c for c in (uuid4() for _ in range(1000)) if share_of(Canary(version=NEW, steps=()), c) < 50)
    assert choose(deployed((50, NOW), opened=True), contact, None) == Choice(NEW, "canary")


def test_a_test_contact_comes_before_canary_and_stable() -> None:
    contact = uuid4()
    pointer = deployed((99, NOW), testers={str(contact): "draft"})
    assert choose(pointer, contact, NOW) == Choice("draft", "tester")
    assert versions(pointer) == {OLD, NEW}


@pytest.mark.parametrize(
    ("canary", "stable", "stopped"),
    [
        (Tally(0, 0), Tally(0, 0), False),
        (Tally(2, 2), Tally(100, 0), False),
        (Tally(3, 3), Tally(0, 0), True),
        (Tally(3, 3), Tally(100, 60), False),
        (Tally(100, 5), Tally(100, 0), False),
        (Tally(100, 6), Tally(100, 0), True),
        (Tally(100, 6), Tally(100, 3), False),
        (Tally(100, 20), Tally(100, 9), True),
    ],
)
def test_a_canary_is_stopped_when_it_fails_often_enough_and_clearly_more_than_the_stable_version(
    canary: Tally, stable: Tally, stopped: bool
) -> None:
    assert (verdict(canary, stable) is not None) == stopped


def here(version: str, **more: object) -> Here:
    return Here(version, deployment=UUID(int=7), **more)  # pyright: ignore[reportArgumentType]


def test_a_pointer_goes_from_step_to_step() -> None:
    assert pointing.deployed(None, OLD) == Pointing(OLD)
    assert pointing.deployed(here(OLD), NEW) == Pointing(NEW, before=UUID(int=7))
    assert pointing.deployed(here(OLD, before=UUID(int=3)), OLD).before == UUID(int=3), "the same again is no step to go back from"
    tried = pointing.tried(here(OLD), NEW, 10, NOW, opened=False)
    assert tried.canary is not None
    assert (tried.version, [s.since for s in tried.canary.steps]) == (OLD, [NOW + pointing.SETTLED])
    more = pointing.tried(here(OLD, canary=tried.canary), NEW, 50, NOW + HOUR, opened=False)
    assert more.canary is not None
    assert [s.percent for s in more.canary.steps] == [10, 50]
    assert pointing.promoted(here(OLD, canary=tried.canary)) == Pointing(NEW, before=UUID(int=7))
    assert pointing.stopped(here(OLD, canary=tried.canary)).canary is None
    assert pointing.rolled_back(here(OLD, canary=tried.canary)) == Pointing(OLD), "from a canary back to what the others have"
    assert pointing.rolled_back(here(NEW, back=Pointing(OLD, UUID(int=3)))) == Pointing(OLD, UUID(int=3))


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (lambda: pointing.tried(None, NEW, 10, NOW, opened=False), "nothing_deployed"),
        (lambda: pointing.tried(here(OLD), OLD, 10, NOW, opened=False), "same_version"),
        (lambda: pointing.promoted(here(OLD)), "no_canary"),
        (lambda: pointing.stopped(None), "no_canary"),
        (lambda: pointing.rolled_back(here(OLD)), "nothing_before"),
        (lambda: pointing.tested(None, {}), "nothing_deployed"),
    ],
)
def test_a_step_that_is_not_possible_says_why(step: object, code: str) -> None:
    assert callable(step)
    with pytest.raises(CannotPoint) as refused:
        step()
    assert refused.value.code == code


def test_the_state_in_which_conversations_open_need_not_be_declared() -> None:
    assert [*objections(Loaded(()), {"unstructured": 5}, {}, {})] == []
    (found,) = objections(Loaded(("a",)), {"unstructured": 5, "a": 1, "b": 2}, {}, {})
    assert found.states == {"b": 2}


def tools(*told: dict[str, Any]) -> Loaded:
    """A version with these tools."""
    usual: dict[str, Any] = {"description": "", "parameters": {"type": "object"}}
    given: list[dict[str, Any]] = [{"name": f"t{n}", **usual, **one} for n, one in enumerate(told)]
    return Loaded((), tools=tuple(Tool(**one) for one in given))


def deep(levels: int) -> Any:
    """Lists in each other."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.promise("P4")
@pytest.mark.parametrize(
    ("told", "words"),
    [
        (Loaded(tuple(map(str, range(501)))), "501 states; 500 are the limit"),
        (Loaded(("x" * 61,)), "1 to 60 characters"),
        (Loaded(("a\0b",)), "no NUL"),
        (Loaded((), {"t": tuple(map(str, range(500)))}), "501 tables and columns"),
        (Loaded((), {"": ()}), "1 to 63 characters"),
        (Loaded((), settings={"k": Setting("k", "weird")}), "'k'"),
        (Loaded((), settings={"k": Setting("k", "str", help="x" * 1001)}), "'k'"),
        (Loaded((), settings={"k": Setting("k", "str", default="\0")}), "'k'"),
        (tools(*(dict[str, Any]() for _ in range(65))), "65 tools; 64 are the limit"),
        (tools({"name": "a b"}), "unlike 'a b'"),
        (tools({"name": "x" * 65}), "1 to 64 plain letters"),
        (tools({"name": "twice"}, {"name": "twice"}), "two of its tools are called 'twice'"),
        (tools({"description": "x" * 8_200}), "bytes as JSON; 8,192 are the limit"),
        (tools({"description": "a\0"}), "U+0000"),
        (tools({"parameters": {"type": "string"}}), "no JSON schema of an object"),
        (tools({"parameters": {"type": "object", "default": float("nan")}}), "cannot be kept as JSON"),
        (tools({"parameters": {"type": "object", "default": b"x"}}), "cannot be kept as JSON"),
        (tools({"parameters": {"type": "object", "items": deep(40)}}), "32 are the limit"),
        (tools({"parameters": {"type": "object", "items": deep(5_000)}}), "cannot be kept as JSON"),
    ],
)
def test_what_a_version_forges_of_itself_is_bounded(told: Loaded, words: str) -> None:
    assert words in (overstated(told) or "")
    good = replace(tools({"name": "look-up"}, {}), states=("a",), needs={"t": ("c",)}, settings={"k": Setting("k", "str")})
    assert overstated(good) is None


@given(
    st.dictionaries(st.sampled_from("ab"), st.text("xy\n", max_size=9)), st.dictionaries(st.sampled_from("ab"), st.text("xy\n", max_size=9))
)
def test_what_differs_is_told_for_each_file_that_differs_and_no_other(old: dict[str, str], new: dict[str, str]) -> None:
    found = {c.path: c for c in difference(old, new)}
    assert found.keys() == {p for p in {*old, *new} if old.get(p) != new.get(p)}
    for path, change in found.items():
        gained = new.get(path, "").count("\n") + (not new.get(path, "\n").endswith("\n") and bool(new.get(path)))
        lost = old.get(path, "").count("\n") + (not old.get(path, "\n").endswith("\n") and bool(old.get(path)))
        assert change.added - change.removed == gained - lost


def test_whatever_is_done_to_a_paused_bot_it_stays_paused_until_it_is_resumed() -> None:
    canary = Canary(version=NEW, steps=(CanaryStep(percent=10, since=NOW),))
    plain = Here(OLD, uuid4(), None, {}, uuid4(), Pointing(NEW))
    tried = replace(plain, canary=canary)
    for here in (plain, tried):
        paused = replace(here, paused=pointing.paused(here).paused)
        steps = [
            pointing.deployed(paused, NEW),
            pointing.rolled_back(paused),
            pointing.tested(paused, {}),
            pointing.tried(paused, NEW, 5, NOW, opened=False),
        ]
        steps += [pointing.promoted(paused), pointing.stopped(paused)] if paused.canary is not None else []
        assert all(step.paused for step in steps)
        assert pointing.resumed(paused) == Pointing(here.version, here.before, here.canary, here.testers)
