"""Change sets of one project in a test: the desk's API with tables and changes, and this service's rows in a control database of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
from loquat_common.bus.memory import MemoryBus
from loquat_common.failpoints import Failpoints
from loquat_common.http import Api
from loquat_common.migrate import load, migrate
from loquat_events.catalog import PROJECTS
from loquat_events.projects import SchemaChanged
from loquat_schema_manager.adapters.changesets import ChangeSets
from loquat_schema_manager.adapters.editors import Editors
from loquat_schema_manager.adapters.records import Records
from loquat_schema_manager.domain.steps import Bounds
from loquat_schema_manager.handlers.announcements import Announcements
from loquat_schema_manager.http.changes import Changes
from loquat_schema_manager.http.tables import Tables

from tests.desk import Desk, open_desk
from tests.tenants import Project

if TYPE_CHECKING:
    from conftest import Platform

    Pool = asyncpg.Pool[asyncpg.Record]


async def control(platform: Platform) -> Pool:
    """schema-manager's migrated schema of a fresh control database."""
    pool = await platform.pool("schema-manager")
    async with pool.acquire() as connection:
        migrations = load(files("loquat_schema_manager.migrations"))
        await migrate(connection, schema="schema_manager", component="schema-manager", migrations=migrations)
    return pool


@dataclass(slots=True)
class Workshop:
    """The desk, and what stands behind its changes."""

    desk: Desk
    pool: Pool
    changes: ChangeSets
    announcements: Announcements

    async def change(self, *changes: dict[str, Any], **more: Any) -> dict[str, Any]:
        """A change set that must be applied."""
        made = await self.desk.good("POST", "/changes", {"changes": list(changes), **more})
        assert made["state"] == "applied", made
        return made

    async def dry(self, *changes: dict[str, Any], **more: Any) -> dict[str, Any]:
        """A dry run."""
        return await self.desk.good("POST", "/changes", {"changes": list(changes), "dry_run": True, **more})

    async def refused(self, *changes: dict[str, Any], status: int, code: str, **more: Any) -> dict[str, Any]:
        """The problem of a change set that must be refused."""
        return await self.desk.bad("POST", "/changes", {"changes": list(changes), **more}, status=status, code=code)

    async def table(self, name: str) -> dict[str, Any]:
        """A table as it is described."""
        return await self.desk.good("GET", self.desk.path(name))

    async def column(self, table: str, name: str) -> dict[str, Any]:
        """A column as it is described."""
        return next(c for c in (await self.table(table))["columns"] if c["name"] == name)

    def announced(self) -> list[SchemaChanged]:
        """What the bus was told."""
        return [e.data for e in self.desk.bus.broker.events(PROJECTS) if isinstance(e.data, SchemaChanged)]


@asynccontextmanager
async def open_workshop(
    project: Project,
    pool: Pool,
    *,
    points: Path | None = None,
    bounds: Bounds | None = None,
    holder: Callable[[], int | None] = lambda: None,
) -> AsyncGenerator[Workshop]:
    """`points`: a folder of failpoints. `holder`: as in `Records`."""
    made: list[tuple[ChangeSets, Announcements]] = []

    def add(api: Api, editors: Editors, bus: MemoryBus) -> None:
        records = Records(pool, holder)
        announcements = Announcements(records, bus)
        changes = ChangeSets(editors, records, announcements.wake, bounds=bounds, failpoints=Failpoints(points))
        made.append((changes, announcements))
        Tables(editors).add_to(api)
        Changes(changes).add_to(api)

    async with open_desk(project, add) as desk:
        yield Workshop(desk, pool, *made[0])
