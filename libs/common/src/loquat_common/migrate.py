"""The migrator: numbered SQL files in pre/post pairs, each in a transaction, recorded with its checksum.

`pre` files run when new code starts, beside old code that still runs: it must run on the schema after them. `post` files run when no old code
is left; only the operator knows when that is (docs/adr/0006). So a `pre` file relies on no `post` file: that may come earlier or later.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Final, Literal

import asyncpg

from loquat_common.logs import get_logger
from loquat_common.sql import Ident, compose

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

Phase = Literal["pre", "post"]
_NAME: Final = re.compile(r"(\d{4})_(pre|post)_([a-z0-9_]+)\.sql")
_LOCK_TIMEOUT: Final = "10s"  # another replica migrates; it takes milliseconds, or something is wrong


class MigrationError(Exception):
    """The files and what was applied before do not go together."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    number: int
    phase: Phase
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """sha-256 of the text, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def file(self) -> str:
        """Its file's name, without the ending."""
        return f"{self.number:04}_{self.phase}_{self.name}"

    @property
    def key(self) -> tuple[int, int]:
        """The order in which files run."""
        return (self.number, 0 if self.phase == "pre" else 1)


def load(folder: Traversable) -> list[Migration]:
    """The migrations of a package's folder, in order.

    Raises:
        MigrationError: a file's name is not `0001_pre_what.sql`, or a number and phase come twice.
    """
    found: list[Migration] = []
    for file in folder.iterdir():
        if not file.name.endswith(".sql"):
            continue
        match = _NAME.fullmatch(file.name)
        if match is None:
            raise MigrationError(f"{file.name}: a migration is named like 0001_pre_what.sql")
        phase: Phase = "pre" if match[2] == "pre" else "post"
        found.append(Migration(int(match[1]), phase, match[3], file.read_text()))
    found.sort(key=lambda m: m.key)
    if len({m.key for m in found}) != len(found):
        raise MigrationError("a number and phase come twice")
    return found


async def migrate(
    connection: Connection,
    *,
    schema: str,
    component: str,
    migrations: Sequence[Migration],
    lock: AbstractAsyncContextManager[object] | None = None,
    post: bool = True,
) -> list[str]:
    """Applies what is missing, in order; answers the names applied. Harmless when repeated, safe when two do it at once.

    Without `post`, those files wait, unless nothing of the component is there yet: then there is no old code either.

    Within a file, unqualified names are those of `schema`. The lock is a transaction's advisory lock on `connection` unless the caller
    brings one (for project databases it is in the control database: a tenant must not be able to hold it).

    Raises:
        MigrationError: an applied file was changed afterwards, or a file is missing among the applied ones.
    """
    async with lock or _advisory(connection, f"migrate {schema}.{component}"):
        await connection.execute(
            compose(
                "CREATE TABLE IF NOT EXISTS {table} (component text NOT NULL, number int NOT NULL, phase text NOT NULL, name text NOT NULL,"
                " checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (component, number, phase))",
                table=Ident(schema).dot("migrations"),
            )
        )
        applied = await _applied(connection, schema, component)
        missing = _missing(migrations, applied)
        now = [m for m in missing if post or not applied or m.phase == "pre"]
        for migration in now:
            await _apply(connection, schema, component, migration)
    if waiting := [m.file for m in missing if m not in now]:
        get_logger().info("migrations.waiting", component=component, files=waiting)
    return [m.file for m in now]


def _missing(migrations: Sequence[Migration], applied: dict[tuple[int, int], str]) -> list[Migration]:
    for migration in migrations:
        if applied.get(migration.key, migration.checksum) != migration.checksum:
            raise MigrationError(f"{migration.file} was changed after it had been applied")
    missing = [m for m in migrations if m.key not in applied]
    last = max(applied, default=(0, 0))
    if early := [m for m in missing if m.key < last and m.phase == "pre"]:
        raise MigrationError(f"{early[0].number:04}_{early[0].name} comes before what has been applied already")
    return missing


async def _applied(connection: Connection, schema: str, component: str) -> dict[tuple[int, int], str]:
    rows = await connection.fetch(
        compose("SELECT number, phase, checksum FROM {table} WHERE component = $1", table=Ident(schema).dot("migrations")), component
    )
    return {(r["number"], 0 if r["phase"] == "pre" else 1): r["checksum"] for r in rows}


async def _apply(connection: Connection, schema: str, component: str, migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute(compose("SET LOCAL search_path = {schema}, pg_catalog", schema=Ident(schema)))
        await connection.execute(migration.sql)
        await connection.execute(
            compose(
                "INSERT INTO {table} (component, number, phase, name, checksum) VALUES ($1, $2, $3, $4, $5)",
                table=Ident(schema).dot("migrations"),
            ),
            component,
            migration.number,
            migration.phase,
            migration.name,
            migration.checksum,
        )


@asynccontextmanager
async def _advisory(connection: Connection, name: str) -> AsyncGenerator[None]:
    await connection.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
    await connection.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", name)
    try:
        yield
    finally:
        await connection.execute("SELECT pg_advisory_unlock(hashtextextended($1, 0))", name)
        await connection.execute("RESET lock_timeout")
