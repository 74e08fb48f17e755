"""Workers that live for one call: apart from those that answer contacts, which they neither replace nor crowd out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from loquat import protocol
from loquat_events.projects import ProjectListed

from loquat_bot_runner.adapters.bundles import Bundles
from loquat_bot_runner.adapters.housing import Housing
from loquat_bot_runner.adapters.worker import Worker, Write

_WATCH: Final = 0.1  # seconds between two looks at what it takes of the machine


class Singles:
    """Behind the same walls and under the same limits as all workers."""

    def __init__(self, bundles: Bundles, housing: Housing) -> None:
        self._bundles, self._housing = bundles, housing

    @asynccontextmanager
    async def worker(self, project: ProjectListed, version: str, write: Write) -> AsyncGenerator[tuple[Worker, protocol.Ready]]:
        """One with the version loaded, ended with the block.

        Raises:
            CallFailed: it does not load, or there is no process.
        """
        folder = await self._bundles.of(project.project_id, version)
        worker, database = await self._housing.worker(project, folder, write)
        watching = asyncio.create_task(_watched(worker), name="watch of a preview")
        try:
            yield worker, await worker.start(database)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await asyncio.shield(worker.kill())


async def _watched(worker: Worker) -> None:
    while True:
        await asyncio.sleep(_WATCH)
        worker.watch()
