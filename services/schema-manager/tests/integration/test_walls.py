"""Every login of a project, and its SQL console, tries a corpus of hostile statements: each ends as the corpus says, and nothing is lost by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.tenants import Tenants
from tests.walls import WAYS, Statement, Wall, Way, parse
from tests.yard import open_yard

pytestmark = [pytest.mark.promise("P4"), pytest.mark.promise("P5")]

CORPUS: Final = {f.stem: parse(f.read_text()) for f in sorted((Path(__file__).parent / "hostile" / "walls").glob("*.sql"))}
AT_ONCE: Final = 2  # attacks of one login: the machine of the tests shall do something else, too


@pytest.fixture(scope="module")
async def walls(tenants: Tenants) -> AsyncGenerator[dict[Way, Wall]]:
    """A victim and a neighbour for each way in."""
    async with AsyncExitStack() as stack:
        yield {way: await Wall.before(await stack.enter_async_context(open_yard(tenants)), way) for way in WAYS}


@pytest.mark.parametrize("theme", CORPUS)
@pytest.mark.parametrize("way", WAYS)
async def test_a_hostile_statement_ends_as_it_must_whoever_tries_it(walls: dict[Way, Wall], way: Way, theme: str) -> None:
    wall, gate = walls[way], asyncio.Semaphore(AT_ONCE)
    before = await wall.print_of_all()

    async def attempt(statement: Statement) -> str | None:
        async with gate:
            return await wall.attempt(statement)

    surprises = [s for s in await asyncio.gather(*(attempt(s) for s in CORPUS[theme])) if s]
    assert not surprises, "\n".join(surprises)
    assert await wall.print_of_all() == before, "an object, a right or a row of the platform's or the neighbour's changed"
    assert await wall.yard.trojans() == [], "a tenant's code ran as somebody else"
    await wall.works()


def test_the_corpus_has_many_statements_and_none_of_them_twice() -> None:
    texts = [s.sql for statements in CORPUS.values() for s in statements]
    assert len(texts) == len(set(texts)) >= 300
