"""Many projects whose people write: what they wrote, what must have come of it, and how what has come of it differs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

BOTS: Final = Path(__file__).parent / "soak" / "bots"
TABLES: Final = """
CREATE TABLE heard (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, said text NOT NULL);
CREATE TABLE tried (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, said text NOT NULL);
CREATE TABLE ticks (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, due_at timestamptz NOT NULL)"""
"""What the bots write into: nothing in it is unique but its own number, so that what is written twice is there twice."""
_TEXT: Final = re.compile(r"(\d+):\d+")

Texts = Sequence[str]


def _number(text: str) -> int:
    return int(text.rpartition(":")[2])


def _all(texts: Texts) -> list[str]:
    return list(texts)


def _none(_texts: Texts) -> list[str]:
    return []


def _said(*words: str) -> Callable[[Texts], list[str]]:
    return lambda texts: [f"{word} {text}" for text in texts for word in words]


def _pairs(texts: Texts) -> list[str]:
    """A question after each first message; an answer to each second one."""
    return [f"{texts[n - 1]} then {text}" if n % 2 else f"and after {text}" for n, text in enumerate(texts)]


@dataclass(frozen=True, slots=True)
class Kind:
    """A bot, by its file, and what it makes of one contact's messages in their order.

    `said` are its replies, `rows` what it writes, both in order. `loose` comes after them in any order, as a reply and as a row. `dead` are messages at
    which it fails for good. `people`: how many write to it, None for as many as to others.
    """

    name: str
    said: Callable[[Texts], list[str]] = _all
    rows: Callable[[Texts], list[str]] = _all
    loose: Callable[[Texts], list[str]] = _none
    dead: Callable[[Texts], list[str]] = _none
    people: int | None = None

    @property
    def files(self) -> dict[str, str]:
        """Its code."""
        return {"bot.py": (BOTS / f"{self.name}.py").read_text()}


def _but(said: Callable[[Texts], list[str]], dead: Callable[[Texts], list[str]]) -> Callable[[Texts], list[str]]:
    return lambda texts: said([t for t in texts if t not in dead(texts)])


def _third(texts: Texts) -> list[str]:
    return [t for t in texts if _number(t) % 3 == 2]


def _fourth(texts: Texts) -> list[str]:
    return [t for t in texts if _number(t) % 4 == 3]


PLAIN: Final = Kind("plain", said=_said("one", "two"), rows=_none)
ROWS: Final = Kind("rows", said=_said("heard"))
COUNTER: Final = Kind("counter", said=lambda texts: [f"{n} {t}" for n, t in enumerate(texts, 1)], rows=_none)
ASKER: Final = Kind("asker", said=_pairs, rows=lambda texts: list(texts[: len(texts) // 2 * 2]))
TIMERS: Final = Kind("timers", said=_said("later"), loose=_said("due"))
GATHERER: Final = Kind("gatherer")
SLOW: Final = Kind("slow", said=_said("well,"))
FLAKY: Final = Kind("flaky", said=_said("at last"))
FAILING: Final = Kind("failing", said=_but(_said("yes"), _third), rows=_but(_all, _third), dead=_third)
# One contact: what ends with a worker that is ended for its time counts as late itself.
HOSTILE: Final = Kind("hostile", said=_but(_said("here"), _fourth), rows=_but(_all, _fourth), dead=_fourth, people=1)
CLOCK: Final = Kind("clock", said=_said("heard"))
EACH: Final = (ROWS, COUNTER, PLAIN, ASKER, TIMERS, GATHERER, SLOW, FLAKY, FAILING, HOSTILE, CLOCK)
KINDS: Final = (*EACH, ROWS, COUNTER, PLAIN, ROWS, COUNTER, ASKER, TIMERS, PLAIN, ROWS)
"""In turn, project by project."""


@dataclass(slots=True, eq=False)
class Person:
    """Somebody who writes to one project, a message after the other. `wamids` are those of messages that were acknowledged, in order."""

    contact: str
    wamids: list[str] = field(default_factory=list[str])
    busy: bool = False

    @property
    def texts(self) -> list[str]:
        """What was acknowledged, in order."""
        return [f"{self.contact}:{n}" for n in range(len(self.wamids))]


@dataclass(slots=True, eq=False)
class Neighbour:
    """A project, its number, its people."""

    project: str
    number: str
    kind: Kind
    people: list[Person]
    database: str = ""

    @property
    def name(self) -> str:
        """For a report."""
        return f"{self.kind.name} {self.project}"


@dataclass(frozen=True, slots=True)
class Sent:
    """One of the platform's rows of a message out."""

    text: str
    status: str


@dataclass(frozen=True, slots=True)
class Found:
    """What has come of a project's messages. `shown`: what each contact's phone shows. `ledger` is P7's."""

    wamids: Sequence[str]
    rows: Sequence[str]
    sent: Sequence[Sent]
    shown: Mapping[str, Sequence[str]]
    ledger: Mapping[str, int]
    total: int | None = None
    """What the bot has counted in its memory."""
    ticks: Sequence[int] = ()
    """Minutes of a schedule that were written down."""


def differences(neighbour: Neighbour, found: Found) -> list[str]:
    """What is not as it must be, a sentence each."""
    kind, people = neighbour.kind, neighbour.people
    wrong = _unlike("recorded", found.wamids, [w for p in people for w in p.wamids])
    rows, sent, shown = _by_contact(found.rows), _by_contact([s.text for s in found.sent]), {c: _parts(found.shown[c]) for c in found.shown}
    unsure = {part for s in found.sent if s.status == "unknown" for part in s.text.split("|")}
    for person in people:
        texts, contact = person.texts, person.contact
        loose = kind.loose(texts)
        wrong += _unlike("written", rows.get(contact, []), [*kind.rows(texts), *loose])
        wrong += _order("written", [r for r in rows.get(contact, []) if r not in loose], kind.rows(texts))
        wrong += _unlike("queued", sent.get(contact, []), [*kind.said(texts), *loose])
        theirs = shown.get(contact, [])
        wrong += _unlike("shown", theirs, [t for t in (*kind.said(texts), *loose) if t not in unsure])
        wrong += _order("shown", [t for t in theirs if t not in loose], kind.said(texts))
    wrong += [f"{s.status}: {s.text}" for s in found.sent if s.status not in {"delivered", "unknown"}]
    wrong += _accounts(neighbour, found)
    return [f"{neighbour.name}: {w}" for w in wrong]


def _accounts(neighbour: Neighbour, found: Found) -> list[str]:
    """The sums."""
    kind, ledger = neighbour.kind, found.ledger
    messages = sum(len(p.wamids) for p in neighbour.people)
    dead = sum(len(kind.dead(p.texts)) for p in neighbour.people)
    late = min(1, ledger.get("discarded", 0)) if kind is CLOCK else 0  # it was under way when the schedule was turned off
    accepted = messages + sum(len(kind.loose(p.texts)) for p in neighbour.people) + len(found.ticks) + late
    wanted = dict.fromkeys(ledger, 0) | {"accepted": accepted, "handled": accepted - dead - late, "dead": dead, "discarded": late}
    wrong = [f"the ledger says {name}={ledger[name]}, not {wanted[name]}" for name in sorted(wanted) if ledger[name] != wanted[name]]
    if kind is COUNTER and messages and found.total != messages:
        wrong.append(f"the bot counted {found.total}, not {messages}")
    if found.ticks and list(found.ticks) != list(range(found.ticks[0], found.ticks[0] + len(found.ticks))):
        wrong.append(f"the minutes of the schedule are {list(found.ticks)}")
    return wrong


def _parts(texts: Sequence[str]) -> list[str]:
    """A bot may join texts."""
    return [part for text in texts for part in text.split("|")]


def _by_contact(texts: Sequence[str]) -> dict[str, list[str]]:
    found = dict[str, list[str]]()
    for text in _parts(texts):
        match = _TEXT.search(text)
        found.setdefault(match[1] if match else "", []).append(text)
    return found


def _unlike(what: str, found: Sequence[str], wanted: Sequence[str]) -> list[str]:
    there, due = Counter(found), Counter(wanted)
    lost, more = due - there, there - due
    return [f"not {what}: {text}" for text in lost] + [f"{what} once too often, or uncalled for: {text}" for text in more]


def _order(what: str, found: Sequence[str], wanted: Sequence[str]) -> list[str]:
    places = {text: n for n, text in enumerate(wanted)}
    order = [places[text] for text in found if text in places]
    return [] if order == sorted(order) else [f"{what} out of order: {list(found)}"]
