"""A replica that fires what is due, and dies. Run by test_firing.py: `firer.py DSN N`: at the N-th point, 0 for never. It ends well when nothing is due."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime
from typing import Any, cast

from loquat_bot_runner.adapters import due
from loquat_bot_runner.handlers.timers import Firing
from loquat_common.bus.postgres import PostgresBus
from loquat_common.db import open_pool
from loquat_common.failpoints import Failpoints
from loquat_events.projects import ProjectListed

due.BATCH = 5  # pyright: ignore[reportPrivateUsage, reportConstantRedefinition, reportAttributeAccessIssue]  (more batches, more ends)


class Hazard(Failpoints):
    def __init__(self, left: int) -> None:
        super().__init__(None)
        self.left = left

    def hit(self, name: str) -> None:
        del name
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Everybody:
    """The directory."""

    def get(self, project: str) -> ProjectListed:
        return ProjectListed(project_id=project, organization_id="o", name="p", state="ready")


def now() -> datetime:
    return datetime.now(UTC)


async def main(dsn: str, left: int) -> None:
    pool = await open_pool(dsn, search_path="bot_runner, pg_catalog", max_size=4)
    bus = PostgresBus(pool, dsn, "bot-runner")
    await bus.start()
    firing = Firing(due.DueIndex(pool), cast("Any", Everybody()), bus, Hazard(left), now)
    while True:
        fired, following = await firing.once()
        if not fired and (following is None or following > now()):
            break
        await asyncio.sleep(0.005)  # the other one's turn
    await bus.stop()
    await pool.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
