"""Workers of many projects: which are kept, which go, and whose words are written down."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from loquat_bot_runner.adapters.bundles import Bundles
from loquat_bot_runner.adapters.credentials import Credentials
from loquat_bot_runner.adapters.workers import Workers
from loquat_bot_runner.errors import DoesNotStart, ProjectDatabaseAway
from loquat_common.problems import Problem
from loquat_sandbox import Sandbox

from tests.bots import housing
from tests.processes import below
from tests.shelf import QUICK, Shelf, task
from tests.system.world import until


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
async def workers(shelf: Shelf, sandbox: Sandbox, bundles: Path) -> AsyncGenerator[Workers]:
    made = Workers(cast("Any", shelf), Bundles(shelf, bundles), housing(sandbox), most=10, idle=60)
    writing = asyncio.create_task(made.write_logs())
    yield made
    await made.close()
    writing.cancel()


def processes() -> set[int]:
    """Of bots: forked, or with a program of their own."""
    return set(below("loquat.worker", "loquat_sandbox.zygote"))


async def test_a_replaced_worker_answers_what_it_began_and_then_ends(workers: Workers) -> None:
    before = processes()
    slow = asyncio.create_task(workers.call(task("slow", "0.8")))
    await until(lambda: _more(before), "the first version runs")
    assert (await workers.call(task("quick")))["replies"][0]["text"] == "hi"
    assert (await slow)["replies"][0]["text"] == "0.8"
    await workers._see_off()
    assert len(processes() - before) == 1


async def _more(before: set[int]) -> bool:
    return bool(processes() - before)


async def test_a_worker_that_printed_too_much_is_replaced_at_the_next_call(workers: Workers) -> None:
    before = processes()
    await workers.call(task("loud"))
    first = processes() - before
    assert (await workers.call(task("loud", "quiet")))["replies"][0]["text"] == "quiet"
    assert len(processes() - before - first) == 1


async def test_a_start_that_is_cancelled_leaves_no_process_behind(workers: Workers) -> None:
    before = processes()
    starting = asyncio.create_task(workers.call(task("never")))
    await until(lambda: _more(before), "its process is there")
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert processes() == before


async def test_a_projects_flood_of_lines_is_cut_and_its_neighbours_lines_are_kept(workers: Workers, shelf: Shelf) -> None:
    shelf.writing.clear()
    for n in range(2_000):
        workers._note("prj_loud", None, "print", f"line {n}")
    workers._note("prj_quiet", None, "print", "a word")
    shelf.writing.set()
    await until(lambda: _written(shelf, "prj_quiet"), "the neighbour's line is written")
    assert shelf.lines["prj_quiet"] == ["a word"]
    assert len(shelf.lines["prj_loud"]) == 500
    workers._note("prj_loud", None, "print", "after")
    await until(lambda: _last(shelf, "(1500 lines before this were not kept: too many at once)"), "the cut is said")


async def _written(shelf: Shelf, project: str) -> bool:
    return project in shelf.lines


async def _last(shelf: Shelf, line: str) -> bool:
    return shelf.lines["prj_loud"][-1] == line


@pytest.mark.promise("P4")
async def test_versions_that_do_not_load_keep_no_other_project_from_its_turn(workers: Workers) -> None:
    before = processes()
    hanging = [asyncio.create_task(workers.load(task("never", project="prj_never").project, "never")) for _ in range(8)]
    await until(lambda: _more(before), "the first of them is loading")
    assert (await workers.load(task("quick").project, "quick")).states == ()
    assert len(processes() - before) == 1, "one at a time"
    for one in hanging:
        one.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
    assert processes() == before


class Resting:
    """A worker that rests. While it ends, others go, and one takes up work."""

    def __init__(self, used_at: int, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.used_at, self.busy, self.meanwhile, self.ended = used_at, False, meanwhile, False

    async def kill(self) -> None:
        self.ended = True
        self.meanwhile()


async def test_a_full_runner_ends_no_worker_that_went_or_took_up_work_meanwhile(shelf: Shelf, sandbox: Sandbox, bundles: Path) -> None:
    made = Workers(cast("Any", shelf), Bundles(shelf, bundles), housing(sandbox), most=2, idle=60)

    def meanwhile() -> None:
        made._workers.pop(("b", "v"))
        busy.busy = True

    first, gone, busy, last = Resting(1, meanwhile), Resting(2), Resting(3), Resting(4)
    made._workers = {(name, "v"): cast("Any", w) for name, w in zip("abcd", (first, gone, busy, last), strict=True)}
    await made._make_room()
    assert [w.ended for w in (first, gone, busy, last)] == [True, False, False, True]
    assert list(made._workers) == [("c", "v")]


@pytest.mark.promise("P2")
async def test_a_lost_zygote_is_the_platforms_fault_for_whoever_was_starting_or_answering(workers: Workers) -> None:
    """Else one accident would block every project that was starting until its next deployment."""
    before = processes()
    answering = asyncio.create_task(workers.call(task("slow", "30", "prj_slow")))
    await until(lambda: _more(before), "one answers")
    starting = asyncio.create_task(workers.call(task("never", project="prj_never")))
    await until(lambda: _count(before, 2), "another starts")
    zygote = cast("Any", workers)._housing._sandbox._zygote
    if zygote is None:
        pytest.skip("this machine has no level 1")
    os.kill(zygote._now._process.pid, signal.SIGKILL)
    for one in (starting, answering):
        with pytest.raises(ProjectDatabaseAway):
            await one
    assert (await workers.call(task("quick")))["replies"][0]["text"] == "hi"


async def _count(before: set[int], most: int) -> bool:
    return len(processes() - before) == most


class Impossible:
    """A shelf with files that the disk does not take."""

    async def files(self, project: str, version: str) -> dict[str, str]:
        del project, version
        return {"a": "", "a/b": ""}


async def test_files_that_cannot_be_unpacked_are_the_platforms_fault_and_leave_nothing(bundles: Path) -> None:
    with pytest.raises(ProjectDatabaseAway):
        await Bundles(Impossible(), bundles).of("prj", "v")
    assert [p for p in bundles.rglob("*") if p.name != "prj"] == []


async def test_folders_that_nobody_asks_for_go_and_are_unpacked_again(shelf: Shelf, bundles: Path) -> None:
    made = Bundles(shelf, bundles)
    old, left, fresh = await made.of("prj_a", "quick"), bundles / "prj_a" / "slow.123", await made.of("prj_b", "slow")
    left.mkdir()
    for folder in (old, left):
        os.utime(folder, (1, 1))
    assert made.sweep() == 2
    assert (old.exists(), left.exists(), fresh.exists()) == (False, False, True)
    assert (await made.of("prj_a", "quick") / "bot.py").read_text() == QUICK
    os.utime(fresh, (1, 1))
    await made.of("prj_b", "slow")
    assert made.sweep() == 0, "somebody asked for it"


class Provisioner:
    """Answers with these, one after the other."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)

    def itself(self, *_scopes: str) -> None:
        return None

    async def call(self, _method: str, _path: str, **_more: Any) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_only_a_login_that_is_not_there_blocks_a_project_and_a_platforms_fault_does_not() -> None:
    login = {"host": "h", "port": 1, "database": "d", "user": "u", "password": "p"}
    faults = [Problem(500, "internal_error", "x"), Problem(401, "unauthenticated", "x"), Problem(502, "bad_answer", "x")]
    credentials = Credentials(cast("Any", Provisioner(*faults, Problem(404, "not_found", "x"), login)))
    project = task("quick").project
    for _ in faults:
        with pytest.raises(ProjectDatabaseAway):
            await credentials.of(project)
    with pytest.raises(DoesNotStart):
        await credentials.of(project)
    assert (await credentials.of(project)).user == "u"
    assert (await credentials.of(project)).user == "u", "kept: nobody is asked again"
