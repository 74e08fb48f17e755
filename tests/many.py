"""Many project databases at once, of an older system schema: what the sweep, the soak test and the bench bring forward."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import asyncpg
from loquat_common.migrate import Migration
from loquat_common.settings import ClusterAddress
from loquat_common.sql import Ident, compose
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.ids import fact_id
from loquat_events.projects import ProjectListed
from loquat_provisioner.domain.life import Names
from loquat_schema_manager.adapters.cluster import build_template, system_migrations
from loquat_schema_manager.adapters.databases import ProjectShapes, opener
from loquat_schema_manager.domain.shapes import Outcome, Target
from pydantic import SecretStr

from tests.tenants import PASSWORD, Project, Tenants

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

OLD: Final = 5
"""The first version of the system schema that projects were made of."""
NEXT: Final = (
    "ALTER TABLE public.contacts ADD COLUMN pronouns text; CREATE INDEX contacts_pronouns__lq ON public.contacts (pronouns);"
    " ALTER TABLE loquat.events ADD COLUMN seen boolean"
)
"""A step as a next release may have it: columns and an index on tables in use."""


def next_release() -> list[Migration]:
    """All migrations there are, and one more."""
    now = system_migrations()
    return [*now, Migration(now[-1].number + 1, "pre", "next", NEXT)]


async def older(tenants: Tenants) -> str:
    """The sealed template of `OLD`."""
    return await build_template(tenants.as_service("schema-manager"), [m for m in system_migrations() if m.number <= OLD])


async def make(tenants: Tenants, count: int, template: str) -> list[Project]:
    """Projects without logins, as the provisioner makes them but of that template."""
    admin = await tenants.as_service("provisioner")("postgres")
    made: list[Project] = []
    for _ in range(count):
        names = Names.fresh()
        await admin.execute(
            compose(
                "CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log ALLOW_CONNECTIONS false CONNECTION LIMIT 30",
                name=Ident(names.database),
                template=Ident(template),
            )
        )
        project = Project(tenants, names, uuid4().hex)
        await tenants.databases.shut(names)
        await tenants.databases.open(names, project.project_id, 1)
        made.append(project)
    await admin.close()
    return made


async def drop(tenants: Tenants, projects: Sequence[Project]) -> None:
    """Deletes them."""
    for project in projects:
        await tenants.drop(project)


def target_of(project: Project) -> Target:
    """As the sweep knows it."""
    return Target("tenants", project.database, project.project_id)


def listed(project: Project) -> tuple[str, AnyEvent]:
    """The directory's word that it is ready."""
    data = ProjectListed(
        project_id=project.project_id, organization_id="o", name="p", state="ready", cluster="tenants", database=project.database
    )
    key = project.project_id
    event = Event[Payload].of(data, id=fact_id("listed", key), source="/provisioner", time=datetime.now(UTC), project=key, lane="project")
    return f"{key}:project", event


def clusters(tenants: Tenants) -> dict[str, ClusterAddress]:
    """The service's settings."""
    return {"tenants": ClusterAddress(host=tenants.cluster.host, port=tenants.cluster.port, password=SecretStr(PASSWORD))}


def shapes(tenants: Tenants, migrations: Sequence[Migration]) -> ProjectShapes:
    """The one that is under test, where nobody took a name."""

    async def none(_target: Target, _inside: Connection) -> int:
        return 0

    return ProjectShapes(opener(clusters(tenants)), migrations, none, lambda: 0.0)


@dataclass(slots=True)
class Attempts:
    """What a sweep tries: in order, and how many at the same time."""

    shapes: ProjectShapes
    targets: list[Target] = field(default_factory=list[Target])
    running: int = 0
    most: int = 0

    async def attempt(self, target: Target) -> Outcome:
        """Counts it and does it."""
        self.targets.append(target)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self.shapes.bring_forward(target)
        finally:
            self.running -= 1


@dataclass(slots=True)
class Crowd:
    """How many connections a cluster had at most, whoever's, the watcher's own left out."""

    most: int = 0
    looks: int = 0


@asynccontextmanager
async def counted(tenants: Tenants, every: float) -> AsyncGenerator[Crowd]:
    """Looks every so many seconds."""
    root, crowd = await tenants.cluster.connect(), Crowd()
    sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"

    async def look() -> None:
        while True:
            crowd.most = max(crowd.most, await root.fetchval(sql))
            crowd.looks += 1
            await asyncio.sleep(every)

    task = asyncio.create_task(look())
    try:
        yield crowd
    finally:
        task.cancel()
        await asyncio.wait([task])
        root.terminate()
        if not task.cancelled():
            task.result()
