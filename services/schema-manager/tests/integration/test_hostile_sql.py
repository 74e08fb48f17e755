"""A corpus of hostile statements as a project's own logins. Afterwards the platform's objects are as before, victim and neighbour work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import pytest

from tests.tenants import Tenants
from tests.yard import Attack, Yard, open_yard, parse

pytestmark = [pytest.mark.promise("P4"), pytest.mark.promise("P5")]

CORPUS: Final = {f.stem: parse(f.read_text()) for f in sorted((Path(__file__).parent / "hostile").glob("*.sql"))}
AT_ONCE: Final = {"memory": 1}
"""Attacks of a group that run at the same time; those on memory one by one, so that the tests' own machine survives."""


@pytest.fixture(scope="module")
async def yard(tenants: Tenants) -> AsyncGenerator[Yard]:
    async with open_yard(tenants) as opened:
        yield opened


@pytest.mark.parametrize("group", CORPUS)
async def test_hostile_statements_change_nothing_and_stop_nobody(yard: Yard, group: str) -> None:
    before = await yard.fingerprint()
    gate = asyncio.Semaphore(AT_ONCE.get(group, 3))

    async def attempt(attack: Attack) -> str | None:
        async with gate:
            outcome = await yard.attack(attack)
        return (
            None
            if outcome in attack.expected
            else f"{outcome} instead of {' or '.join(sorted(attack.expected))}: {attack.login}: {attack.sql[:160]}"
        )

    surprises = [s for s in await asyncio.gather(*(attempt(a) for a in CORPUS[group])) if s]
    assert not surprises, "\n".join(surprises)
    assert await yard.fingerprint() == before, "an object, a right or a row of the platform's changed"
    assert await yard.trojans() == [], "a tenant's code ran as somebody else"
    for project in (yard.victim, yard.neighbour):
        await yard.run_event(project)


def test_the_corpus_is_no_smaller_than_it_was() -> None:
    assert sum(len(attacks) for attacks in CORPUS.values()) >= 260
