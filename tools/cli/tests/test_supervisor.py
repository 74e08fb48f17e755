"""The supervisor, with small programs in place of services."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from loquat_cli.child import Child
from loquat_cli.home import read_json
from loquat_cli.process import Process
from loquat_cli.restarts import Restarts
from loquat_cli.supervisor import Supervisor
from loquat_embedded.child import alive, gone

PATIENCE = 10.0
QUICK = Restarts(first=0.01, longest=0.05, stable=60, loop=3)
SLEEPER = "echo up >> {folder}/starts; exec sleep 1000"


async def until(look: Callable[[], object], what: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            while not look():  # noqa: ASYNC110  (no event crosses processes)
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not in time: {what}") from None


def child(folder: Path, script: str, patience: float = 5.0) -> Child:
    return Child(["/bin/sh", "-c", script.format(folder=folder)], {"PATH": os.environ["PATH"]}, folder / "log", patience)


def supervisor(folder: Path, died: list[str] | None = None) -> Supervisor:
    said = died if died is not None else []
    return Supervisor(
        folder / "state.json", restarts=QUICK, log_bytes=1000, died=lambda p: said.append(f"{p.name}: {p.state}, {p.last_end}")
    )


def starts(folder: Path) -> int:
    return (folder / "starts").read_text().count("up") if (folder / "starts").exists() else 0


async def test_a_process_that_dies_is_started_again_and_its_death_is_told(tmp_path: Path) -> None:
    died: list[str] = []
    async with supervisor(tmp_path, died) as boss:
        await boss.start([("sleeper", child(tmp_path, SLEEPER), tmp_path / "log")])
        process = boss.processes["sleeper"]
        await until(lambda: starts(tmp_path) == 1, "the first start")
        process.kill()
        await until(lambda: starts(tmp_path) == 2, "the second start")
        assert (process.state, process.restarts) == ("running", 1)
    assert died == ["sleeper: waiting, killed by SIGKILL"]


async def test_a_crash_loop_is_shown_and_still_tried(tmp_path: Path) -> None:
    died: list[str] = []
    async with supervisor(tmp_path, died) as boss:
        await boss.start([("broken", child(tmp_path, "echo up >> {folder}/starts; exit 3"), tmp_path / "log")])
        await until(lambda: starts(tmp_path) >= 6, "six starts")
    assert died[:4] == [
        "broken: waiting, exit code 3",
        "broken: waiting, exit code 3",
        "broken: crash loop, exit code 3",
        "broken: crash loop, exit code 3",
    ]


async def test_a_process_with_wrong_settings_is_not_started_again_and_its_state_says_failed(tmp_path: Path) -> None:
    async with supervisor(tmp_path) as boss:
        await boss.start([("misled", child(tmp_path, "echo up >> {folder}/starts; exit 78"), tmp_path / "log")])
        await until(lambda: boss.processes["misled"].state == "failed", "failure")
        shown = read_json(tmp_path / "state.json")
        assert shown is not None
        assert shown["processes"]["misled"]["last_end"] == "wrong settings"
        assert starts(tmp_path) == 1


async def test_stopping_gives_the_time_to_finish_and_leaves_nothing(tmp_path: Path) -> None:
    polite = (
        "trap 'echo drained >> {folder}/ends; exit 0' TERM; sleep 1000 & echo $! > {folder}/grandchild; echo up >> {folder}/starts; wait"
    )
    async with supervisor(tmp_path) as boss:
        await boss.start([("polite", child(tmp_path, polite), tmp_path / "log")])
        await until(lambda: starts(tmp_path) == 1, "start")
    assert (tmp_path / "ends").read_text() == "drained\n"
    await asyncio.wait_for(gone(int((tmp_path / "grandchild").read_text())), PATIENCE)
    assert not (tmp_path / "state.json").exists()


async def test_a_process_that_does_not_end_in_its_time_is_killed(tmp_path: Path) -> None:
    stubborn = "trap '' TERM; echo up >> {folder}/starts; while true; do sleep 0.05; done"
    async with supervisor(tmp_path) as boss:
        await boss.start([("stubborn", child(tmp_path, stubborn, patience=0.2), tmp_path / "log")])
        await until(lambda: starts(tmp_path) == 1, "start")
        pid = boss.processes["stubborn"].pid
        assert pid is not None
    assert not alive(pid)


async def test_later_phases_are_stopped_before_earlier_ones(tmp_path: Path) -> None:
    def names(name: str) -> Child:
        script = f"trap 'echo {name} >> {{folder}}/ends; exit 0' TERM; echo up >> {{folder}}/starts; while true; do sleep 0.02; done"
        return child(tmp_path, script)

    async with supervisor(tmp_path) as boss:
        await boss.start([("database", names("database"), tmp_path / "log")])
        await boss.start([("service", names("service"), tmp_path / "log")])
        await until(lambda: starts(tmp_path) == 2, "both")
    assert (tmp_path / "ends").read_text().split() == ["service", "database"]


async def test_a_program_that_is_missing_stops_the_start_with_its_name(tmp_path: Path) -> None:
    missing = Child(["/no/such/program"], {}, tmp_path / "log", 1.0)
    async with supervisor(tmp_path) as boss:
        with pytest.raises(FileNotFoundError, match="/no/such/program"):
            await boss.start([("missing", missing, tmp_path / "log")])


async def test_a_process_can_be_stopped_and_started_by_hand(tmp_path: Path) -> None:
    async with supervisor(tmp_path) as boss:
        await boss.start([("sleeper", child(tmp_path, SLEEPER), tmp_path / "log")])
        process = boss.processes["sleeper"]
        await until(lambda: starts(tmp_path) == 1, "the first start")
        await process.stop()
        assert (process.state, process.pid) == ("stopped", None)
        await process.start()
        await until(lambda: starts(tmp_path) == 2, "the second start")
        assert process.restarts == 0


async def test_a_start_that_fails_after_a_death_is_tried_again_with_its_reason() -> None:
    class Flaky:
        """Dies at once, cannot be started twice, then lives."""

        pid: int | None = None
        attempts = 0

        async def start(self) -> None:
            self.attempts += 1
            if self.attempts in {2, 3}:
                raise OSError("no room")

        async def ended(self) -> int:
            if self.attempts > 3:
                await asyncio.Event().wait()
            return 1

        async def stop(self) -> None: ...

        def kill(self) -> None: ...

    said: list[str] = []
    process = Process("flaky", Flaky(), QUICK, lambda p: said.append(f"{p.state}: {p.last_end}"))
    await process.start()
    await until(lambda: process.restarts == 1, "it lives")
    assert said[1:4] == ["waiting: exit code 1", "waiting: did not start: no room", "crash loop: did not start: no room"]
    await process.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not tie a child to its parent")
async def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = f"""
import asyncio
from pathlib import Path
from loquat_cli.child import Child

async def main():
    child = Child(["/bin/sleep", "1000"], {{}}, Path({str(tmp_path)!r}) / "log", 1.0)
    await child.start()
    print(child.pid, flush=True)
    await child.ended()

asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
    async with asyncio.timeout(PATIENCE):
        assert parent.stdout is not None
        pid = int(await parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        await parent.wait()
        await gone(pid)
