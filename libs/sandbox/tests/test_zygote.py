"""What ends with what: workers, their zygote, the runner."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import textwrap
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pytest
from loquat_sandbox import Confinement, ConfinementFailed, Level, Limits, Measured, Sandbox, Zygote, measure, users
from loquat_sandbox.groups import Groups
from loquat_sandbox.incarnation import Incarnation
from loquat_sandbox.users import Users, UsersSpent

from tests.confined import gone, loaded, printed
from tests.processes import below

SLEEP = "import time\ntime.sleep(60)\n"
RUNNER = """
    import asyncio, sys
    from pathlib import Path
    from loquat_sandbox import Level, Limits, measure

    async def main():
        sandbox = (await measure(Path(sys.argv[1]), Level(int(sys.argv[2])))).sandbox
        made = [await sandbox.run(f"prj_{n}", Path(sys.argv[1], "bot"), Limits()) for n in range(3)]
        print(*(m.pid for m in made), flush=True)
        await asyncio.sleep(60)

    asyncio.run(main())
"""


@pytest.fixture(scope="module")
async def best(shelf: Path) -> AsyncGenerator[Measured]:
    found = await measure(shelf)
    if found.sandbox.level < Level.CONFINED:
        pytest.skip(f"this machine gives no isolation level with a zygote: {'; '.join(found.missing)}")
    yield found
    await found.sandbox.close()


@pytest.fixture
async def zygote(best: Measured, shelf: Path) -> AsyncGenerator[Zygote]:
    made = Zygote(min(best.sandbox.level, Level.CONTAINED), shelf)
    yield made
    await made.close()


def empty(shelf: Path) -> Path:
    (shelf / "bot").mkdir(exist_ok=True)
    return shelf / "bot"


def zygotes() -> set[int]:
    """Our own, and those inside of them."""
    return set(below("loquat_sandbox.zygote"))


@pytest.mark.promise("P4")
async def test_a_killed_runner_leaves_no_process_behind(at_level: Measured, shelf: Path) -> None:
    empty(shelf)
    level = str(int(at_level.sandbox.level))
    runner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(RUNNER), str(shelf), level, stdout=asyncio.subprocess.PIPE
    )
    assert runner.stdout is not None
    pids = [int(pid) for pid in (await runner.stdout.readline()).split()]
    assert len(pids) == 3
    runner.kill()
    await runner.wait()
    await gone(pids)


async def test_workers_end_with_their_zygote_and_the_next_finds_another(zygote: Zygote, shelf: Path) -> None:
    before = zygotes()
    first = [await zygote.fork(Confinement(folder=empty(shelf))) for _ in range(2)]
    server = [pid for pid in below("loquat_sandbox.zygote") if pid not in before | {m.pid for m in first}][-1]
    os.kill(server, signal.SIGKILL)
    async with asyncio.timeout(10):
        assert {await m.ended() for m in first} <= {"SIGKILL", "it ended with its zygote"}
    again = await zygote.fork(Confinement(folder=empty(shelf)))
    assert again.alive
    await gone([m.pid for m in first])
    for one in (*first, again):
        await one.close()


async def test_a_wall_that_cannot_be_raised_ends_the_worker_before_any_code_runs(zygote: Zygote, shelf: Path) -> None:
    before = zygotes()
    await zygote.start()
    served = zygotes()
    read_only = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(ConfinementFailed, match=r"control group: .*Bad file descriptor"):
        await zygote.fork(Confinement(folder=empty(shelf), groups=(read_only,)))
    os.close(read_only)
    await gone(list(zygotes() - served - before))
    with pytest.raises(ConfinementFailed, match=r"root directory|landlock|privacy"):
        await zygote.fork(Confinement(folder=shelf / "nothing there"))


async def test_only_what_lies_among_the_bundles_is_shown(zygote: Zygote, shelf: Path) -> None:
    (shelf / "link").unlink(missing_ok=True)
    (shelf / "link").symlink_to("/etc")
    for folder in (Path("/etc"), shelf / ".." / "tenants", shelf / "link"):
        with pytest.raises(ValueError, match="not in the subpath"):
            await zygote.fork(Confinement(folder=folder))


async def test_a_fork_that_nobody_waits_for_leaves_no_process(zygote: Zygote, shelf: Path) -> None:
    await zygote.start()
    served = zygotes()
    for patience in (0.0, 0.0005, 0.002, 0.004):
        try:
            async with asyncio.timeout(patience):
                made = await zygote.fork(Confinement(folder=empty(shelf)))
        except TimeoutError:
            continue
        await made.close()
    probe = await zygote.fork(Confinement(folder=empty(shelf)))  # the zygote answers in order: it has heard of all before
    await probe.close()
    await gone(list(zygotes() - served))


async def test_neither_descriptors_nor_processes_pile_up(best: Measured, shelf: Path) -> None:
    sandbox = best.sandbox
    await (await sandbox.run("prj", empty(shelf), Limits())).close()
    gc.collect()  # what other tests left open is not counted
    descriptors, processes = len(os.listdir("/proc/self/fd")), zygotes()  # noqa: PTH208
    made = await asyncio.gather(*(sandbox.run(f"prj_{n}", empty(shelf), Limits()) for n in range(20)))
    assert len({m.pid for m in made}) == 20
    await asyncio.gather(*(m.close() for m in made))
    assert len(os.listdir("/proc/self/fd")) <= descriptors  # noqa: PTH208
    await gone(list(zygotes() - processes))


async def test_bundles_that_were_lost_and_unpacked_again_are_shown(best: Measured, clusters_home: Path) -> None:
    home = clusters_home / "shelf-lost"
    zygote = Zygote(min(best.sandbox.level, Level.CONTAINED), home)
    for _ in range(2):
        (home / "bot").mkdir(parents=True)
        made = await zygote.fork(Confinement(folder=home / "bot"))
        await made.close()
        (home / "bot").rmdir()
        home.rename(clusters_home / f"shelf-lost-{os.urandom(4).hex()}")
    await zygote.close()


async def test_a_zygote_that_is_old_is_replaced_and_ends_after_its_last_worker(best: Measured, shelf: Path) -> None:
    zygote = Zygote(min(best.sandbox.level, Level.CONTAINED), shelf, longest=0.0)
    before = zygotes()
    first = await zygote.fork(Confinement(folder=empty(shelf)))
    old = zygotes() - before - {first.pid}
    second = await zygote.fork(Confinement(folder=empty(shelf)))
    assert first.alive
    assert old <= zygotes()
    await first.close()
    await gone(list(old))
    assert second.alive
    await second.close()
    await zygote.close()


@pytest.fixture
async def paired(best: Measured, shelf: Path) -> AsyncGenerator[Zygote]:
    """With another in reserve."""
    made = Zygote(min(best.sandbox.level, Level.CONTAINED), shelf)
    keeping = asyncio.create_task(made.standby.run(calm=0))
    await made.start()
    yield made
    keeping.cancel()
    await made.close()


async def reserve(zygote: Zygote) -> Incarnation:
    """The one that is kept, once it is ready."""
    async with asyncio.timeout(10):
        while (kept := zygote.standby._kept) is None or kept.lost:  # noqa: ASYNC110  (nobody else waits for it)
            await asyncio.sleep(0.01)
    return kept


async def killed(zygote: Incarnation) -> None:
    """And known to be."""
    zygote._process.kill()
    async with asyncio.timeout(10):
        while not zygote.lost:  # noqa: ASYNC110  (the inner one ends after the outer)
            await asyncio.sleep(0.01)


async def test_when_the_serving_zygote_is_killed_the_next_worker_comes_from_the_one_in_reserve(paired: Zygote, shelf: Path) -> None:
    first, kept, serving = await paired.fork(Confinement(folder=empty(shelf))), await reserve(paired), paired._now
    assert serving is not None
    await killed(serving)
    assert await first.ended() in {"SIGKILL", "it ended with its zygote"}
    second = await paired.fork(Confinement(folder=empty(shelf)))
    assert paired._now is kept
    assert await reserve(paired) is not kept, "and there is another"
    for one in (first, second):
        await one.close()


async def test_when_both_zygotes_are_killed_a_third_is_started_and_closing_leaves_none(best: Measured, shelf: Path) -> None:
    before, zygote = zygotes(), Zygote(min(best.sandbox.level, Level.CONTAINED), shelf)
    keeping = asyncio.create_task(zygote.standby.run(calm=0))
    first = await zygote.fork(Confinement(folder=empty(shelf)))
    assert zygote._now is not None
    await asyncio.gather(killed(zygote._now), killed(await reserve(zygote)))
    await first.ended()
    second = await zygote.fork(Confinement(folder=empty(shelf)))
    await reserve(zygote)
    keeping.cancel()
    await zygote.close()
    await gone(list(zygotes() - before))
    for one in (first, second):
        await one.close()


async def test_the_kernel_ends_a_group_that_takes_too_much_and_it_is_known_why() -> None:
    groups = Groups.find()
    if isinstance(groups, str):
        pytest.skip(f"this machine lets us make no control groups: {groups}")
    group = groups.make(Limits(memory=16 << 20, temporary=0))
    hog = "import os, sys\nos.write(int(sys.argv[1]), b'0')\nheld = []\nwhile True:\n    held.append(bytearray(os.urandom(1 << 20)))\n"
    fd = group.entries[0]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", hog, str(fd), pass_fds=[fd])
    assert await process.wait() == -signal.SIGKILL
    assert group.ran_out_of_memory()
    group.remove()


async def test_a_group_that_still_holds_a_process_goes_when_the_next_one_is_made() -> None:
    """Of a worker whose zygote was killed its end is known before it has ended."""
    groups = Groups.find()
    if isinstance(groups, str):
        pytest.skip(f"this machine lets us make no control groups: {groups}")
    group = groups.make(Limits())
    stays = "import os, sys\nos.write(int(sys.argv[1]), b'0')\nprint(flush=True)\nsys.stdin.read()\n"
    fd, pipe = group.entries[0], asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", stays, str(fd), pass_fds=[fd], stdin=pipe, stdout=pipe)
    assert process.stdout is not None
    await process.stdout.readline()
    group.remove()
    assert any(folder.exists() for folder in group._folders)
    await process.communicate(b"")
    groups.make(Limits()).remove()
    assert not any(folder.exists() for folder in group._folders)


def test_a_group_that_a_killed_runner_of_our_own_number_left_is_in_nobodys_way() -> None:
    """In a container the next runner has the number of the one that was killed."""
    groups = Groups.find()
    if isinstance(groups, str):
        pytest.skip(f"this machine lets us make no control groups: {groups}")
    kept = groups.make(Limits())
    stale = [folder.with_name(f"loquat-{os.getpid()}-1-2") for folder in kept._folders]
    for folder in stale:
        folder.mkdir()
    groups.sweep()
    assert not any(folder.exists() for folder in stale)
    assert all(folder.exists() for folder in kept._folders)
    kept.remove()


def test_users_are_held_apart_from_other_runners_and_come_again_last() -> None:
    first, second = Users(700_000, 8192), Users(700_000, 8192)
    taken = [first.take("a"), first.take("b"), first.take("a"), second.take("a")]
    assert taken[0] == taken[2]
    assert len(set(taken)) == 3
    with pytest.raises(UsersSpent):
        Users(700_000, 8192).take("c")
    first.give("a")
    assert first.take("c") not in taken, "a fresh one, while there are"
    first.close()
    second.close()


def test_who_is_not_root_has_no_users_to_give() -> None:
    assert (users.available() is None) == (os.geteuid() != 0)


def test_the_frames_of_a_worker_that_is_made_hold_no_secret() -> None:
    assert {"password", "database", "secrets"} & set(msgspec.structs.asdict(Confinement(folder=Path("/x")))) == set()


async def test_a_worker_says_nothing_of_its_zygote(best: Measured, shelf: Path) -> None:
    code = """
import os, sys
def there(descriptor):
    try:
        return bool(os.fstat(descriptor))
    except OSError:
        return False
print(sorted(os.environ) == sorted(set(os.environ)), [f for f in range(7, 256) if there(f)], sys.argv)
"""  # 4 to 6 are those of the worker's own event loop
    made = await loaded(best.sandbox, shelf, code)
    assert await printed(made) == "True [] ['bot', '3']\n"
    await made.close()


def sandbox_is_none() -> Sandbox:
    return Sandbox(Path("/nowhere"))


async def test_level_0_is_a_process_with_limits_and_the_same_doors(tmp_path: Path) -> None:
    sandbox = sandbox_is_none()
    assert sandbox.level is Level.NONE
    made = await loaded(
        sandbox, tmp_path, "import os, resource\nprint(resource.getrlimit(resource.RLIMIT_DATA)[0], 'PATH' in os.environ)\nos._exit(3)\n"
    )
    assert await printed(made) == f"{Limits().memory} False\n"
    assert await made.ended() == "exit 3"
    assert made.postgres_port != made.egress_port
    await made.close()


async def test_another_system_than_linux_has_level_0_and_says_so(monkeypatch: pytest.MonkeyPatch, shelf: Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    found = await measure(shelf)
    assert found.sandbox.level is Level.NONE
    assert found.missing == ("darwin on this processor has none of the walls",)
