"""Project databases on tenant clusters, as loquat_provisioner. Every method may be repeated."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_common.db import DatabaseAway, is_gone
from loquat_common.sql import Ident, compose

from loquat_provisioner.domain.life import CONNECTIONS, LOGINS, SIZE_LIMIT, Login, Names, StepFailed

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

Connect = Callable[[str], Awaitable["asyncpg.Connection[asyncpg.Record]"]]
_ROUNDS: Final = 4096  # PostgreSQL's own default of scram_iterations


def verifier(password: str) -> str:
    """The SCRAM verifier, made here: no password travels in SQL text, and the reaper can put it back without knowing the password."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${_ROUNDS}:{_text(salt)}${_text(stored)}:{_text(server)}"


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


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
    async def _alone(self) -> AsyncGenerator[Connection]:
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

    async def template(self) -> str:
        """The newest sealed template.

        Raises:
            StepFailed: none is sealed yet.
        """
        async with self._alone() as admin:
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
        async with self._alone() as admin:
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
        async with self._alone() as admin:
            await admin.execute(compose("REVOKE ALL ON DATABASE {database} FROM PUBLIC", database=database))
            await admin.execute(compose("GRANT CONNECT ON DATABASE {database} TO loquat_service", database=database))
            if not await admin.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", names.owner):
                await admin.execute(compose("CREATE ROLE {owner} NOLOGIN", owner=Ident(names.owner)))

    async def open(self, names: Names, project: str, epoch: int) -> None:
        """Lets connections in (so far only services may) and gives the schema to its project."""
        async with self._alone() as admin:
            await admin.execute(compose("ALTER DATABASE {database} ALLOW_CONNECTIONS true", database=Ident(names.database)))
            await admin.execute(
                "INSERT INTO loquat_operations.projects (database, size_limit) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                names.database,
                SIZE_LIMIT,
            )
            inside = await self._open(names.database)
            try:
                await inside.execute("SELECT loquat.open_project($1, $2)", project, epoch)
            finally:
                await inside.close(timeout=5)

    async def logins(self, names: Names, passwords: Mapping[Login, str]) -> None:
        """The project's logins; each may connect to this database alone, and starts as the owner role."""
        async with self._alone() as admin:
            for kind in LOGINS:
                async with admin.transaction():
                    await self._login(admin, names, kind, verifier(passwords[kind]))

    async def _login(self, admin: Connection, names: Names, kind: Login, secret: str) -> None:
        role = names.login(kind)
        known = await admin.fetchval("SELECT true FROM loquat_operations.logins WHERE rolname = $1", role)
        if known:
            return
        places = {"role": Ident(role), "owner": Ident(names.owner), "database": Ident(names.database)}
        create = await admin.fetchval(
            "SELECT format('CREATE ROLE %I LOGIN NOINHERIT PASSWORD %L CONNECTION LIMIT %s', $1::text, $2::text, $3::int)",
            role,
            secret,
            CONNECTIONS[kind],
        )
        await admin.execute(create)
        await admin.execute(compose("GRANT {owner} TO {role} WITH INHERIT FALSE, SET TRUE", **places))
        await admin.execute(compose("ALTER ROLE {role} IN DATABASE {database} SET role = {owner}", **places))
        await admin.execute(compose("ALTER ROLE {role} IN DATABASE {database} SET search_path = public", **places))
        await admin.execute(compose("GRANT CONNECT ON DATABASE {database} TO {role}", **places))  # no TEMPORARY, no CREATE
        await admin.execute(
            "INSERT INTO loquat_operations.logins VALUES ($1, $2, $3, $4, $5)",
            role,
            names.database,
            secret,
            CONNECTIONS[kind],
            [f"role={names.owner}", "search_path=public"],
        )

    async def drop(self, names: Names) -> None:
        """The database is closed first: no session comes back between the termination and the drop, and none that still ends holds up a role."""
        database, roles = Ident(names.database), [*(names.login(kind) for kind in LOGINS), names.owner]
        async with self._alone() as admin:
            open_ = "SELECT true FROM pg_database WHERE datname = $1 AND datconnlimit <> -2"  # -2: a drop was cut off, only another one is possible
            if await admin.fetchval(open_, names.database):
                await admin.execute(compose("ALTER DATABASE {database} ALLOW_CONNECTIONS false", database=database))
            await admin.execute(compose("DROP DATABASE IF EXISTS {database} WITH (FORCE)", database=database))
            for role in roles:
                await admin.execute(compose("DROP ROLE IF EXISTS {role}", role=Ident(role)))
            await admin.execute("DELETE FROM loquat_operations.logins WHERE database = $1", names.database)
            await admin.execute("DELETE FROM loquat_operations.projects WHERE database = $1", names.database)
