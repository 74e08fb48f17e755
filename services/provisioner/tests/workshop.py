"""A provisioner at work in a test: its real parts on a real control database and a real tenant cluster; a small server plays bot-runner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import asyncpg
from aiohttp import web
from loquat_common.bus import deferred
from loquat_common.bus.memory import MemoryBus
from loquat_common.bus.port import Done, Outcome, Received
from loquat_common.client import InternalClient
from loquat_common.crypto import KeyRing
from loquat_common.failpoints import FailpointError, Failpoints
from loquat_common.http import Api, internal_auth
from loquat_common.lifecycle import Server
from loquat_common.migrate import load, migrate
from loquat_common.problems import Problem
from loquat_common.tokens import Signer, Verifier, new_key
from loquat_embedded.ports import free_port
from loquat_events.catalog import COMMANDS, DIRECTORY, PROJECTS, parse
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.projects import CreateProject, DeleteProject, ProjectListed, RetryProject
from loquat_provisioner.adapters.backups import BackupStore
from loquat_provisioner.adapters.databases import ProjectDatabases
from loquat_provisioner.adapters.starter import StarterBot
from loquat_provisioner.adapters.store import Project, Step, Store
from loquat_provisioner.domain.life import KEPT, LOGINS, Login, Names
from loquat_provisioner.handlers.backups import Backups
from loquat_provisioner.handlers.commands import Commands
from loquat_provisioner.handlers.facts import Facts
from pydantic import BaseModel

from conftest import Platform
from tests.tenants import PASSWORD, Tenants

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]

STARTER: Final = {"bot.py": "from loquat import Bot\n\nbot = Bot()\n", "README.md": "The starter bot.\n"}
ORGANIZATION: Final = "org_a"

_CLUSTER: Final = """
SELECT format('database %s %s %s %s %s', oid, datname, datallowconn, datconnlimit, datacl) AS line, datname AS name FROM pg_database WHERE datname ~ '^[pbro]_'
UNION ALL SELECT format('role %s %s %s %s %s', oid, rolname, rolcanlogin, rolconnlimit, rolpassword), rolname FROM pg_authid WHERE rolname ~ '^p_'
UNION ALL SELECT format('login %s', l), rolname FROM loquat_operations.logins AS l
UNION ALL SELECT format('project %s', p), database FROM loquat_operations.projects AS p ORDER BY 1"""


def now() -> datetime:
    return datetime.now(UTC)


class _Project(BaseModel):
    project_id: str


class _Deployment(BaseModel):
    files: dict[str, str]
    message: str


@dataclass(slots=True)
class Bots:
    """bot-runner as the provisioner sees it: deployments by project; `refuses` answers every call with that status."""

    public: str
    refuses: int | None = None
    deployed: dict[str, list[dict[str, str]]] = field(default_factory=dict[str, list[dict[str, str]]])

    def server(self) -> Server:
        api = Api("Bots", "1", authenticate=internal_auth(Verifier({"provisioner": self.public}, "bot-runner")))
        path = "/internal/projects/{project_id}/deployments"
        api.route("POST", path, self.deploy, summary="Deploy", status=201, scope="bots:write")
        return Server(api.app(), "127.0.0.1", 0)

    async def deploy(self, _request: web.Request, *, path: _Project, body: _Deployment) -> None:
        if self.refuses is not None:
            raise Problem(self.refuses, "refused", "It is refused by the test")
        self.deployed.setdefault(path.project_id, []).append(body.files)


@dataclass(frozen=True, slots=True)
class Process:
    """What one process of the provisioner has in memory."""

    commands: Commands
    databases: ProjectDatabases


@dataclass(slots=True)
class Workshop:
    """See the module."""

    platform: Platform
    tenants: Tenants
    pool: Pool
    folder: Path
    bots: Bots
    client: InternalClient
    root: Connection  # the tenant cluster's superuser
    ring: KeyRing = field(default_factory=lambda: KeyRing.from_json(KeyRing.new()))
    bus: MemoryBus = field(default_factory=lambda: MemoryBus("provisioner"))
    away: bool = False
    """Whether the tenant cluster refuses connections."""
    limit: float = 60.0
    """Seconds for a command on the tenant cluster."""
    patience: float = 2.0
    """Seconds until a busy project is shut for a copy."""
    before: frozenset[str] = frozenset()
    """What was on the tenant cluster before this test."""
    _closed: int = field(default_factory=free_port)

    @property
    def store(self) -> Store:
        return Store(self.pool, self.ring)

    def databases(self) -> ProjectDatabases:
        """The tenant cluster as a process sees it that has just begun."""

        async def connect(database: str) -> Connection:
            return await asyncpg.connect(
                host=self.tenants.cluster.host,
                port=self._closed if self.away else self.tenants.cluster.port,
                user="loquat_provisioner",
                password=PASSWORD,
                database=database,
                timeout=5,
                command_timeout=self.limit,
                statement_cache_size=0,
            )

        return ProjectDatabases(connect)

    def process(self, *, client: InternalClient | None = None, clusters: tuple[str, ...] = ("tenants",)) -> Process:
        """One that has just begun."""
        databases, starter = self.databases(), StarterBot(client or self.client, self.folder / "starter")
        points = Failpoints(self.folder / "points")
        facts, kept, placed = Facts(now), BackupStore(self.pool), dict.fromkeys(clusters, databases)
        backups = Backups(self.store, kept, placed, self.bus, points, facts, kept=2, patience=self.patience)
        return Process(Commands(self.store, placed, starter, self.bus, points, facts, backups, kept), databases)

    def arm(self, point: str) -> None:
        (self.folder / "points" / point).write_text("raise")

    async def handle(self, order: Payload, *, attempts: int = 0, **more: Any) -> Outcome:
        """In a process of its own, as the bus hands it over; what it wants published is published, as the loop does."""
        process = self.process(**more)
        try:
            outcome = await process.commands.handle(received(order, attempts))
        finally:
            await process.databases.close()
        if isinstance(outcome, Done):
            await self.bus.publish(*outcome.publish)
        return outcome

    async def killed(self, order: Payload, point: str, **more: Any) -> None:
        """The process ends there."""
        self.arm(point)
        try:
            await self.handle(order, **more)
        except FailpointError:
            return
        raise AssertionError(f"{point} was not passed")

    async def control(self, sql: str) -> None:
        """About the control database, from the one beside it."""
        connection = await self.platform.cluster.connect()
        await connection.execute(sql.format(name=self.platform.database))
        await connection.close()

    async def project(self) -> Project:
        """A ready one."""
        order = create()
        assert isinstance(await self.handle(order), Done)
        return await self.row(order.project_id)

    # -- looks

    async def row(self, project: str) -> Project:
        row = await self.store.get(project)
        assert row is not None
        return row

    async def steps(self, project: str) -> list[Step]:
        return (await self.store.steps([project]))[project]

    def said(self, project: str) -> list[AnyEvent]:
        """The events about the project."""
        return [e for e in self.bus.broker.events(PROJECTS) if e.projectid == project]

    def events(self, project: str) -> list[Payload]:
        """What they say."""
        return [e.data for e in self.said(project)]

    def listings(self, project: str) -> list[ProjectListed | None]:
        """What the directory said of the project, in order; None is a tombstone."""
        records = [r for r in self.bus.broker.logs[f"{DIRECTORY.name}/0"] if r.key == f"{project}:project"]
        said = [parse(r.value).data if r.value else None for r in records]
        return [s for s in said if s is None or isinstance(s, ProjectListed)]

    def states(self, project: str) -> list[str | None]:
        return [s and s.state for s in self.listings(project)]

    async def cluster(self) -> list[str]:
        """Everything of projects on the tenant cluster that was not there before the test, with ids and verifiers."""
        return [r["line"] for r in await self.root.fetch(_CLUSTER) if r["line"] not in self.before]

    async def names(self) -> set[str]:
        """The databases and roles that were not there before the test."""
        return {line.split()[2] for line in await self.cluster() if line.startswith(("database ", "role "))}

    async def idle(self) -> bool:
        """Whether no session of a provisioner that ended is still at work on the cluster."""
        query = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'loquat_provisioner' AND state <> 'idle')"
        return await self.root.fetchval(query)

    async def rows(self) -> list[str]:
        """Every row of the control database."""
        connection = await self.platform.cluster.connect(self.platform.database)
        try:
            return await everything(connection)
        finally:
            await connection.close()

    async def enter(self, project: Project, login: Login, database: str | None = None) -> Connection:
        """As one of the project's logins, with the password that the platform keeps."""
        assert project.database is not None
        password = (await self.store.passwords(project.project_id))[login]
        return await self.tenants.connect(database or project.database, Names(project.database).login(login), password)

    async def whole(self, project_id: str) -> Project:
        """The project, ready: one database, one set of roles, all of it usable, nothing besides."""
        project = await self.row(project_id)
        assert (project.state, project.reason) == ("ready", None)
        assert project.database is not None
        names = Names(project.database)
        assert await self.names() == {names.database, names.owner, *(names.login(kind) for kind in LOGINS)}
        for login in KEPT:
            connection = await self.enter(project, login)
            assert await connection.fetchval("SELECT current_user") == names.owner
            assert await connection.fetchval("SELECT count(*) FROM public.messages") == 0
            await connection.close()
        service = await self.tenants.connect(names.database, "loquat_bot_runner")
        assert tuple(await service.fetchrow("SELECT project, epoch FROM loquat.whoami()") or ()) == (project_id, project.epoch)
        await service.close()
        listed = self.listings(project_id)[-1]
        assert listed is not None
        assert (listed.state, listed.cluster, listed.database, listed.epoch) == ("ready", "tenants", project.database, project.epoch)
        deployed = self.bots.deployed[project_id]
        assert all(f == STARTER for f in deployed)
        return project


async def everything(connection: Connection) -> list[str]:
    """Every row of every table of a database, as text."""
    tables = await connection.fetch(
        "SELECT c.oid::regclass::text AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
    )
    found: list[str] = []
    for table in tables:
        rows = await connection.fetch(f"SELECT * FROM {table['name']}")  # noqa: S608  (the server quoted it)
        found += [" ".join(v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in row.values()) for row in rows]
    return sorted(found)


def create(project: str | None = None, organization: str = ORGANIZATION) -> CreateProject:
    return CreateProject(project_id=project or f"prj_{uuid4().hex[:16]}", organization_id=organization, name="A shop", ordered_by="someone")


def retry(project: str) -> RetryProject:
    return RetryProject(project_id=project, ordered_by="someone")


def delete(project: str, grace: int = 0) -> DeleteProject:
    return DeleteProject(project_id=project, grace_seconds=grace, ordered_by="someone")


def event(order: Payload) -> AnyEvent:
    """As the gateway says it."""
    project: str = getattr(order, "project_id")  # noqa: B009  (each kind of order has one)
    return Event[Payload].of(order, id=uuid4(), source="/gateway", time=now(), project=project, lane="project")


def received(order: Payload, attempts: int = 0) -> Received:
    return Received(event(order), COMMANDS.name, 0, 0, attempts)


@asynccontextmanager
async def open_workshop(platform: Platform, tenants: Tenants, folder: Path) -> AsyncGenerator[Workshop]:
    """With an empty control database; what it leaves on the tenant cluster is cleared away."""
    pool = await platform.pool("provisioner")
    async with pool.acquire() as connection:
        await migrate(connection, schema="provisioner", component="bus", migrations=deferred.migrations())
        await migrate(connection, schema="provisioner", component="provisioner", migrations=load(files("loquat_provisioner.migrations")))
    (folder / "points").mkdir()
    (folder / "starter").mkdir()
    for name, text in STARTER.items():
        (folder / "starter" / name).write_text(text)
    private, public = new_key()
    bots = Bots(public)
    server = bots.server()
    await server.start()
    client = InternalClient(f"http://127.0.0.1:{server.port}", Signer("provisioner", private), "bot-runner")
    await client.start()
    root = await tenants.cluster.connect()
    shop = Workshop(platform, tenants, pool, folder, bots, client, root)
    shop.before = frozenset(r["line"] for r in await root.fetch(_CLUSTER))
    try:
        yield shop
    finally:
        for row in await root.fetch("SELECT datname FROM pg_database WHERE datname ~ '^[bro]_'"):
            await root.execute(f"DROP DATABASE {row['datname']} WITH (FORCE)")
        for row in await pool.fetch("SELECT database FROM projects WHERE database IS NOT NULL ORDER BY created_at DESC"):
            await tenants.databases.drop(Names(row["database"]))
        await root.close()
        await client.stop()
        await server.stop()


async def gone(connection: Connection, limit: float = 10) -> None:
    """Returns when the server has ended the session."""
    ended = asyncio.Event()
    connection.add_termination_listener(lambda _: ended.set())
    if not connection.is_closed():
        async with asyncio.timeout(limit):
            await ended.wait()
