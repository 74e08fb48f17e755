"""The soak's judge finds what is lost, doubled, out of order or unaccounted for, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.neighbours import ASKER, COUNTER, EACH, FAILING, GATHERER, TIMERS, Found, Kind, Neighbour, Person, Sent, differences

ANNA = "4915"


def neighbour(kind: Kind, messages: int = 4) -> Neighbour:
    return Neighbour("prj", "1", kind, [Person(ANNA, [f"wamid.{n}" for n in range(messages)])])


def all_well(one: Neighbour) -> Found:
    """As it must be."""
    (person,) = one.people
    texts, kind = person.texts, one.kind
    said, dead = [*kind.said(texts), *kind.loose(texts)], len(kind.dead(texts))
    accepted = len(texts) + len(kind.loose(texts))
    ledger = {"accepted": accepted, "handled": accepted - dead, "dead": dead, "waiting": 0, "deferred": 0, "held": 0, "discarded": 0}
    rows, sent = [*kind.rows(texts), *kind.loose(texts)], [Sent(text, "delivered") for text in said]
    return Found(person.wamids, rows, sent, {ANNA: said}, ledger, len(texts))


@pytest.mark.parametrize("kind", EACH, ids=lambda kind: kind.name)
def test_every_kind_of_bot_has_its_code_and_is_content_with_its_own(kind: Kind) -> None:
    assert "bot = Bot()" in kind.files["bot.py"]
    assert differences(neighbour(kind), all_well(neighbour(kind))) == []


DAMAGES: list[tuple[str, Kind, Callable[[Found], Found], str]] = [
    ("a message that is not recorded", COUNTER, lambda f: replace(f, wamids=f.wamids[1:]), "not recorded: wamid.0"),
    ("a row that is written twice", TIMERS, lambda f: replace(f, rows=[*f.rows, f.rows[0]]), "written once too often"),
    ("a row that is lost", TIMERS, lambda f: replace(f, rows=f.rows[1:]), "not written: 4915:0"),
    ("rows out of order", FAILING, lambda f: replace(f, rows=f.rows[::-1]), "written out of order"),
    ("a row of what failed", FAILING, lambda f: replace(f, rows=[*f.rows, "4915:2"]), "uncalled for: 4915:2"),
    ("a reply that is shown twice", ASKER, lambda f: replace(f, shown={ANNA: [*f.shown[ANNA], f.shown[ANNA][-1]]}), "shown once too often"),
    ("a reply that nobody queued", ASKER, lambda f: replace(f, sent=f.sent[1:]), "not queued: and after 4915:0"),
    ("replies out of order", COUNTER, lambda f: replace(f, shown={ANNA: f.shown[ANNA][::-1]}), "shown out of order"),
    ("a reply that failed", COUNTER, lambda f: replace(f, sent=[Sent(f.sent[0].text, "failed"), *f.sent[1:]]), "failed: 1 4915:0"),
    ("what waits", COUNTER, lambda f: replace(f, ledger={**f.ledger, "waiting": 1}), "waiting=1"),
    ("a count that is wrong", COUNTER, lambda f: replace(f, total=5), "counted 5, not 4"),
    ("a minute that is missing", COUNTER, lambda f: replace(f, ticks=(7, 9)), "minutes"),
]


@pytest.mark.parametrize(("kind", "damage", "words"), [d[1:] for d in DAMAGES], ids=[d[0] for d in DAMAGES])
def test_it_finds(kind: Kind, damage: Callable[[Found], Found], words: str) -> None:
    assert any(words in said for said in differences(neighbour(kind), damage(all_well(neighbour(kind)))))


def test_a_message_whose_fate_nobody_knows_is_not_shown_and_one_that_is_shown_is_known() -> None:
    one = neighbour(GATHERER)
    well = all_well(one)
    joined = replace(well, sent=[Sent("4915:0|4915:1", "unknown"), *well.sent[2:]])
    assert differences(one, replace(joined, shown={ANNA: well.shown[ANNA][2:]})) == []
    assert any("shown once too often" in said for said in differences(one, joined))
