"""Project databases on tenant clusters, as loquat_provisioner. Every method may be repeated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
from loquat_common.db import CONNECT_LIMIT, GONE, DatabaseAway, is_gone
from loquat_common.settings import ClusterAddress
from loquat_common.sql import Ident, compose

from loquat_provisioner.adapters import logins, shared
from loquat_provisioner.domain.life import LOGINS, SIZE_LIMIT, Login, Names, StepFailed

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

Connect = Callable[[str], Awaitable["asyncpg.Connection[asyncpg.Record]"]]

ClusterRefused = asyncpg.PostgresError
"""What a cluster answers to a statement of ours that it does not take."""


def connector(address: ClusterAddress) -> Connect:
    """Opens databases of a cluster as loquat_provisioner."""

    async def connect(database: str) -> Connection:
        return await asyncpg.connect(
            host=address.host,
            port=address.port,
            user="loquat_provisioner",
            password=address.password.get_secret_value(),
            database=database,
            timeout=CONNECT_LIMIT,
            command_timeout=60,  # CREATE and DROP DATABASE wait for a checkpoint under load
            statement_cache_size=0,
        )

    return connect


class ProjectDatabases:
    """One tenant cluster. `connect(database)` opens a connection as loquat_provisioner; the one to `postgres` is kept.

    Projects are made side by side, a connection does one thing at a time: so the methods below take turns. All raise DatabaseAway when the
    cluster does not answer, goes away meanwhile, or somebody holds a lock for too long.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._admin: Connection | None = None
        self._turn = asyncio.Lock()

    async def close(self) -> None:
        """Closes the connection that is kept."""
        if self._admin is not None:
            self._admin.terminate()
            self._admin = None

    async def admin(self) -> Connection:
        """The connection to database `postgres`, for a caller who has it alone.

        Raises:
            DatabaseAway: the cluster does not answer.
        """
        if self._admin is None or self._admin.is_closed():
            self._admin = await self._open("postgres")
        return self._admin

    @asynccontextmanager
    async def alone(self) -> AsyncGenerator[Connection]:
        """The connection to database `postgres` for as long as the block lasts."""
        async with self._turn:
            try:
                yield await self.admin()
            except Exception as error:
                if not is_gone(error):
                    raise
                await self.close()  # whatever it was in the middle of; the next turn opens another
                raise DatabaseAway(type(error).__name__) from error

    async def _open(self, database: str) -> Connection:
        try:
            return await self._connect(database)
        except Exception as error:
            if is_gone(error):
                raise DatabaseAway(type(error).__name__) from error
            raise

    @asynccontextmanager
    async def inside(self, database: str) -> AsyncGenerator[Connection]:
        """A connection of its own to a database."""
        connection = await self._open(database)
        try:
            yield connection
        except Exception as error:
            if is_gone(error):
                raise DatabaseAway(type(error).__name__) from error
            raise
        finally:
            try:
                await connection.close(timeout=5)
            except GONE:
                connection.terminate()

    async def template(self) -> str:
        """The newest sealed template.

        Raises:
            StepFailed: none is sealed yet.
        """
        async with self.alone() as admin:
            return await self._template(admin)

    async def _template(self, admin: Connection) -> str:
        name: str | None = await admin.fetchval(
            "SELECT datname FROM pg_database WHERE datname ~ '^loquat_template_[0-9]+$' AND datistemplate AND NOT datallowconn"
            " ORDER BY substring(datname FROM '[0-9]+$')::int DESC LIMIT 1"
        )
        if name is None:
            raise StepFailed("no template database is ready on this cluster")
        return name

    async def clone(self, names: Names) -> None:
        """The database, closed to everybody."""
        async with self.alone() as admin:
            if await admin.fetchval("SELECT true FROM pg_database WHERE datname = $1", names.database):
                return
            await admin.execute(
                compose(
                    "CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log ALLOW_CONNECTIONS false CONNECTION LIMIT 30",
                    name=Ident(names.database),
                    template=Ident(await self._template(admin)),
                )
            )

    async def shut(self, names: Names) -> None:
        """Nothing for the public (database rights are not copied by a clone), CONNECT for the services; the owner role."""
        database = Ident(names.database)
        async with self.alone() as admin:
            await admin.execute(compose("REVOKE ALL ON DATABASE {database} FROM PUBLIC", database=database))
            await admin.execute(compose("GRANT CONNECT ON DATABASE {database} TO loquat_service", database=database))
            if not await admin.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", names.owner):
                await admin.execute(compose("CREATE ROLE {owner} NOLOGIN", owner=Ident(names.owner)))

    async def open(self, names: Names, project: str, epoch: int, *, name: str = "bot", organization: str | None = None) -> None:
        """Lets connections in (so far only services may) and gives the schema to its project, whose bot is called after it."""
        async with self.alone() as admin:
            await admin.execute(compose("ALTER DATABASE {database} ALLOW_CONNECTIONS true", database=Ident(names.database)))
            await admin.execute(
                "INSERT INTO loquat_operations.projects (database, size_limit) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                names.database,
                SIZE_LIMIT,
            )
            async with self.inside(names.database) as inside:
                await inside.execute("SELECT loquat.open_project($1, $2)", project, epoch)
                if await inside.fetchval("SELECT true FROM pg_proc WHERE proname = 'name_bot' AND pronamespace = 'loquat'::regnamespace"):
                    await inside.execute("SELECT loquat.name_bot($1, $2)", name, organization)  # a template of before has none

    async def logins(self, names: Names, passwords: Mapping[Login, str]) -> None:
        """The project's logins; each may connect to this database alone, and starts as the owner role. One without a password is closed."""
        async with self.alone() as admin:
            for kind in LOGINS:
                async with admin.transaction():
                    await logins.make(admin, names, kind, passwords.get(kind))

    async def let_in(self, names: Names) -> None:
        """Rights and settings that go with the database, not with its logins: another one has taken its place."""
        database = Ident(names.database)
        async with self.alone() as admin, admin.transaction():
            await admin.execute(compose("REVOKE ALL ON DATABASE {database} FROM PUBLIC", database=database))
            await admin.execute(compose("GRANT CONNECT ON DATABASE {database} TO loquat_service", database=database))
            for kind in LOGINS:
                await admin.execute(
                    compose("GRANT CONNECT ON DATABASE {database} TO {role}", database=database, role=Ident(names.login(kind)))
                )
                await logins.put_right(admin, names.login(kind))

    async def drop(self, names: Names) -> None:
        """The database is closed first: no session comes back between the termination and the drop, and none that still ends holds up a role."""
        database, roles = Ident(names.database), [*(names.login(kind) for kind in LOGINS), names.owner]
        async with self.alone() as admin:
            open_ = "SELECT true FROM pg_database WHERE datname = $1 AND datconnlimit <> -2"  # -2: a drop was cut off, only another one is possible
            if await admin.fetchval(open_, names.database):
                await admin.execute(compose("ALTER DATABASE {database} ALLOW_CONNECTIONS false", database=database))
            await admin.execute(compose("DROP DATABASE IF EXISTS {database} WITH (FORCE)", database=database))
            visitors = "SELECT rolname FROM pg_roles WHERE rolname ~ ('^' || $1 || '_(dump|restore)_')"  # their errand was cut off
            for role in [r["rolname"] for r in await admin.fetch(visitors, names.database)] + roles:
                await shared.drop_role(admin, role)
            await shared.drop_left(admin)
            await admin.execute("DELETE FROM loquat_operations.logins WHERE database = $1", names.database)
            await admin.execute("DELETE FROM loquat_operations.projects WHERE database = $1", names.database)
