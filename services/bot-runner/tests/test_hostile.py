"""Hostile bots: which layer stops each of their attempts, and that a neighbour's bot answers meanwhile."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from loquat_bot_runner.adapters import worker as workers
from loquat_bot_runner.errors import BotError, CallFailed, DoesNotStart, OutOfMemory, ProtocolViolated, TimedOut
from loquat_sandbox import Level

from tests.hostileyard import HOME, Yard, open_yard
from tests.tenants import Project, Tenants

ATTEMPTING = sorted(p.parent.name for p in HOME.glob("bots/*/bot.py") if "attempts" in p.read_text())


@pytest.fixture(scope="module")
async def projects(tenants: Tenants) -> AsyncGenerator[tuple[Project, Project]]:
    made = (await tenants.project(), await tenants.project())
    yield made
    for project in made:
        await tenants.drop(project)


@pytest.fixture(scope="module")
async def yard(tenants: Tenants, projects: tuple[Project, Project]) -> AsyncGenerator[Yard]:
    """At the best level of this machine."""
    async with open_yard(tenants, *projects, Level.HARDENED) as opened:
        if opened.level < Level.CONFINED:
            pytest.skip(f"this machine has no walls: {'; '.join(opened.measured.missing)}")
        yield opened


@pytest.fixture(scope="module")
async def bare(tenants: Tenants, projects: tuple[Project, Project]) -> AsyncGenerator[Yard]:
    """At level 1: seccomp and Landlock stand alone, and must."""
    async with open_yard(tenants, *projects, Level.CONFINED) as opened:
        if opened.level < Level.CONFINED:
            pytest.skip(f"this machine has no level 1: {'; '.join(opened.measured.missing)}")
        yield opened


@pytest.mark.promise("P4")
@pytest.mark.parametrize("bot", ATTEMPTING)
async def test_each_attempt_is_stopped_by_the_layer_that_is_there_for_it(yard: Yard, bot: str) -> None:
    await _judge(yard, bot)


@pytest.mark.promise("P4")
@pytest.mark.parametrize("bot", ATTEMPTING)
async def test_without_namespaces_the_second_fence_stops_what_it_can_and_the_rest_is_known(bare: Yard, bot: str) -> None:
    await _judge(bare, bot)


async def test_an_honest_bot_finds_all_it_needs_behind_every_wall(yard: Yard, bare: Yard) -> None:
    closed = (
        "closed.example.org could not be asked: the proxy answered 403 closed.example.org is not among the hosts that this project allows: "
        "`loquat bot egress allow closed.example.org` opens it, or PUT .../bot/egress"
    )
    needs = [yard.own.database, "hello outside", closed, "Europe/Berlin", "True", "from a thread", "from a pool"]
    for one in (yard, bare):
        assert await one.call("honest") == [*needs, "no file" if one.level < Level.CONTAINED else "a file"]


async def _judge(yard: Yard, bot: str) -> None:
    async with yard.beside_a_neighbour():
        ended = await yard.attempts(bot)
    assert len(ended) > 2
    unheld = [e.name for e in ended if not e.layers(yard.standing)]
    through = {e.name: (e.outcome, e.stops) for e in ended if e.name not in unheld and e.stopped_by(yard.standing) is None}
    assert through == {}
    if unheld:
        pytest.skip(f"level {yard.level:d} has no layer against: {', '.join(unheld)}")


ENDS: dict[str, tuple[type[CallFailed] | tuple[type[CallFailed], ...], str]] = {
    "busy": (TimedOut, ""),
    "busy_in_c": (TimedOut, ""),
    "swallows": (TimedOut, ""),
    "leak": (OutOfMemory, ""),
    "maps_shared": ((OutOfMemory, BotError), "memory"),  # its group's limit, or where there are no groups its own
    "prints": (BotError, "BrokenPipeError"),
    "logs": (BotError, "1000 lines"),
    "dumps_core": (BotError, "SIGABRT|SIGSEGV|SIGTRAP|SIGILL"),
    "segfault": (BotError, "SIGSEGV"),
    "exits": (BotError, "exit 0"),
    "garbage": (ProtocolViolated, ""),
    "oversize": (ProtocolViolated, "4294967295 bytes"),
    "deep": (ProtocolViolated, ""),
    "pickles": (ProtocolViolated, ""),
    "forges_readiness": (ProtocolViolated, "Ready"),
    "forges_runner": (ProtocolViolated, ""),
    "answers_others": (ProtocolViolated, "another shape"),
    "speaks_for_others": (ProtocolViolated, "replies at once"),
    "says_too_much": (BotError, "replies|frame"),
    "shows_frames": (BotError, "ExceptionGroup"),
    "ends_result_early": (BotError, ""),
}


ENDLESS = {"busy", "busy_in_c", "swallows"}


@pytest.mark.promise("P4")
@pytest.mark.parametrize("bot", sorted(ENDS))
async def test_a_bot_that_breaks_the_rules_ends_its_own_call_and_nothing_else(yard: Yard, bot: str) -> None:
    kind, words = ENDS[bot]
    async with yard.beside_a_neighbour():
        failed = await yard.failure(bot, impatient=bot in ENDLESS)
    assert isinstance(failed, kind), repr(failed)
    assert any(w in failed.error for w in words.split("|")), failed.error
    assert not Path("/tmp/loquat-pickle-was-read").exists()  # noqa: S108  (where the pickle would have put it)
    assert not list(Path.cwd().glob("core*"))
    assert "site-packages" not in failed.trace + failed.error
    assert "loquat/" not in failed.trace + failed.error


@pytest.mark.promise("P4")
@pytest.mark.parametrize(
    ("bot", "said"),
    [
        ("busy_threads", "answered"),
        ("leaves_timers", "answered"),
        ("forges_calls", "answered"),
        ("loads_and_forks", ",".join(["stopped"] * 5)),
    ],
)
async def test_a_bot_that_answers_and_does_harm_besides_harms_nobody(yard: Yard, bot: str, said: str) -> None:
    async with yard.beside_a_neighbour():
        assert await yard.call(bot) == [said]
    assert "forged line" not in yard.shelf.lines.get(f"prj_{bot}", [])


@pytest.mark.promise("P4")
async def test_two_projects_that_were_forked_from_one_process_throw_different_dice(yard: Yard) -> None:
    async with yard.beside_a_neighbour():
        one, other = [await yard.call("dice", project=project) for project in ("prj_dice_a", "prj_dice_b")]
    assert [a for a, b in zip(one, other, strict=True) if a == b] == []


@pytest.mark.promise("P4")
async def test_whether_another_project_has_the_same_code_shows_in_nothing(yard: Yard) -> None:
    files = yard.files
    one, other = await files.of("prj_dice_a", "dice"), await files.of("prj_dice_b", "dice")
    assert one.parent != other.parent, "each unpacks its own: a cold start takes as long whoever else has these files"


@pytest.mark.promise("P4")
async def test_a_reply_can_name_nobody_else(yard: Yard) -> None:
    async with yard.beside_a_neighbour():
        try:
            replies = await yard.result("addresses_others")
        except ProtocolViolated:
            return
    assert replies == [{"type": "text", "text": "to another"}], "what it says beside the text is nobody's word"


async def test_a_call_by_another_abis_numbers_ends_the_process(yard: Yard) -> None:
    if platform.machine() != "x86_64":
        pytest.skip(f"{platform.machine()} has one ABI only")
    async with yard.beside_a_neighbour():
        failed = await yard.failure("foreign_abi")
    assert "SIGSYS" in failed.error


async def test_a_bot_that_never_loads_is_given_up(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "START_LIMIT", 0.5)
    async with yard.beside_a_neighbour():
        failed = await yard.failure("never_loads")
    assert isinstance(failed, DoesNotStart)


@pytest.mark.promise("P4")
async def test_a_name_that_moves_inside_is_not_followed(yard: Yard) -> None:
    async with yard.beside_a_neighbour():
        await yard.attempts("outside")
    rebound = [passed for host, passed in yard.names.checked if host == "rebinding.example.com"]
    assert rebound[-1] is False
    assert len([p for p in rebound if p]) <= 1, "checked at each connection, and not asked again between check and connection"


@pytest.mark.promise("P4")
async def test_all_of_them_at_once_are_a_neighbours_business_as_little(yard: Yard) -> None:
    async with yard.beside_a_neighbour():
        await asyncio.gather(
            *(yard.call(bot, impatient=True) for bot in ("busy", "swallows", "leak", "busy_threads", "prints", "forks")),
            return_exceptions=True,
        )
