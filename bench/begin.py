"""The statement that begins a run, and its parts, beside a bare round trip and a bare commit on the same connection."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

from loquat_bot_runner.adapters.runs import ProjectRuns
from loquat_common.db import ProjectPools, as_service
from loquat_common.settings import ClusterAddress
from loquat_events.projects import ProjectListed
from pydantic import SecretStr

from tests.tenants import PASSWORD, Desk, Project, message, open_tenants

TIMES, ROUNDS = 300, 3
BEGIN = "SELECT b.todo, b.contact_id, b.version FROM loquat.begin_event($1, NULL, NULL, false, false) AS b"

Step = Callable[[], Awaitable[object]]


async def begin() -> None:
    """No goal: microseconds of each, interleaved, one after the other."""
    with tempfile.TemporaryDirectory(prefix="loquat-bench-begin-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o711)
        tenants = await open_tenants(home / "tenants", durable=True)
        project = await tenants.project()
        address = ClusterAddress(host=tenants.cluster.host, port=tenants.cluster.port, password=SecretStr(PASSWORD))
        pools = ProjectPools(as_service({"tenants": address}, "loquat_bot_runner"))
        await _measure(project, ProjectRuns(pools))
        await pools.close()
        await tenants.drop(project)
        await tenants.close()


class _Messages:
    """That begin, one after the other."""

    def __init__(self, desk: Desk, runs: ProjectRuns, project: Project) -> None:
        self._desk, self._runs, self._numbers = desk, runs, count()
        self._project = ProjectListed(
            project_id=project.project_id,
            organization_id="o",
            name="p",
            state="ready",
            cluster="tenants",
            database=project.database,
            epoch=1,
        )
        self._begun = list[tuple[dict[str, Any], int]]()

    async def of_somebody_known(self) -> None:
        said = message("wa_id:49152")
        row = await self._desk.runner.fetchrow(BEGIN, said)
        assert row is not None
        assert row["todo"] == "run"
        self._begun.append((said, row["version"]))

    async def end(self) -> None:
        """The next one of the same person would wait for it."""
        for said, version in self._begun:
            await self._desk.commit(said, version, {})
        self._begun.clear()

    async def of_somebody_new(self) -> None:
        await self._desk.runner.fetchrow(BEGIN, message(f"wa_id:4916{next(self._numbers):09}"))

    async def as_the_runner_asks(self) -> None:
        said = message(f"wa_id:4917{next(self._numbers):09}")
        begun = await self._runs.begin(self._project, said, None, age=timedelta(0), gathers=True)
        assert begun.todo == "run", begun


async def _measure(project: Project, runs: ProjectRuns) -> None:
    desk, bot = await Desk.of(project), await project.login("bot")
    messages = _Messages(desk, runs, project)
    await bot.execute("CREATE TABLE bare (id bigint)")
    begun = await desk.begin(said := message("wa_id:49150"))
    await _told(
        {
            "a bare round trip (SELECT 1)": lambda: desk.runner.fetchval("SELECT 1"),
            "a bare commit (INSERT of one number)": lambda: bot.execute("INSERT INTO bare VALUES (1)"),
            "begin_event, the next message of a known person": messages.of_somebody_known,
            "begin_event, the first message of somebody new": messages.of_somebody_new,
            "context_of": lambda: desk.runner.fetchval("SELECT loquat.context_of($1)", begun["contact_id"]),
            "timed_of": lambda: desk.runner.fetchval("SELECT loquat.timed_of($1, 'run')", UUID(said["id"])),
            "all of it, as the runner asks (somebody new)": messages.as_the_runner_asks,
        },
        messages.end,
    )


async def _told(steps: dict[str, Step], after: Step) -> None:
    print(f"what begins a run, us (medians of {TIMES}, {ROUNDS} rounds):")
    rounds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        taken: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(TIMES):
            for name, step in steps.items():
                began = time.perf_counter()
                await step()
                taken[name].append((time.perf_counter() - began) * 1e6)
            await after()
        for name, each in taken.items():
            rounds[name].append(statistics.median(each))
    for name, medians in rounds.items():
        print(f"  {name}: {statistics.median(medians):.0f} ({' '.join(f'{m:.0f}' for m in medians)})")
