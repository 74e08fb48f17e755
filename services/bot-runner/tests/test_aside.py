"""What a stranger's files cost is paid in a process aside: the runner's own loop goes on, and limits end what has none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest
from loquat_bot_runner.adapters.aside import SMALL, Aside
from loquat_bot_runner.domain.bundle import BundleRefused, checked

BRACKETS = {"bot.py": "x = [" + "[]," * 300_000 + "]\n"}
GOOD = {"bot.py": "x = 1\n" * SMALL}


async def turns_during(work: Awaitable[object]) -> int:
    """How often the loop came round meanwhile."""
    done, turns = asyncio.ensure_future(work), 0
    while not done.done():
        await asyncio.sleep(0)
        turns += 1
    await done
    return turns


async def test_a_megabyte_of_brackets_is_read_while_the_loop_goes_on() -> None:
    assert await turns_during(Aside(limit=30).checked(BRACKETS)) > 1_000


async def test_names_of_many_parts_are_read_aside_too() -> None:
    assert await turns_during(Aside().checked({"bot.py": "", "x.toml": "a" + ".a" * 3_900 + " = 1\n"})) > 100
    assert await turns_during(Aside().checked({"bot.py": "", **{f"{'a/' * 90}{n}": "" for n in range(198)}})) > 100


async def test_of_many_flaws_the_first_are_looked_for_and_no_more() -> None:
    with pytest.raises(BundleRefused) as refused:
        checked({"bot.py": "", "loquat.toml": "".join(f"nam{n} = 1\n" for n in range(900))})
    assert len(refused.value.flaws) == 20


async def test_large_and_small_bundles_are_the_same_version_whoever_reads_them() -> None:
    aside = Aside()
    assert await aside.checked(GOOD) == checked(GOOD)
    for files in (GOOD, {"bot.py": "x = 1\n"}):
        assert await aside.checked(files) == checked(files)
    with pytest.raises(BundleRefused) as refused:
        await aside.checked({**GOOD, "more.py": "a = 1\nb = = 2\n"})
    assert [(f.code, f.file, f.line) for f in refused.value.flaws] == [("syntax", "more.py", 2)]


async def test_what_cannot_be_read_within_limits_is_refused_and_its_process_ends() -> None:
    with pytest.raises(BundleRefused) as refused:
        await Aside(limit=0.01).checked(BRACKETS)
    assert refused.value.flaws[0].code == "too_complex"


async def test_two_versions_are_compared_aside_and_given_up_in_time() -> None:
    found = await Aside().difference({"a": "1\n"}, {"a": "2\n"})
    assert found is not None
    assert (found[0].added, found[0].removed) == (1, 1)
    assert await Aside(limit=0.01).difference({"a": "1\n"}, {"a": "2\n"}) is None
