"""A tenant cluster: what a superuser makes once, and the sealed template that projects are cloned from."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_common.bootstrap import BOOTSTRAP, bootstrap_of, mark_bootstrap, set_passwords
from loquat_common.migrate import Migration, load, migrate
from loquat_common.sql import Ident, compose

from loquat_schema_manager.adapters.upgrades import Left, close_left_open, upgrade_databases

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

Connect = Callable[[str], Awaitable["asyncpg.Connection[asyncpg.Record]"]]

ADDRESS_SPACE: Final = 2 << 30
"""Bytes of a tenant cluster's backend: anybody may set work_mem, so the kernel is the only limit. 2 GB turned `work_mem = '6GB'` into an ERROR."""
_BASE: Final = "loquat_base"
_HERE: Final = "loquat_schema_manager.adapters"
_CLOSE_LIMIT: Final = 5.0  # seconds


def tenant_settings() -> dict[str, str]:
    """The settings of a tenant cluster (`bootstrap/cluster.conf`), by name."""
    found: dict[str, str] = {}
    for line in _script("cluster.conf").splitlines():
        name, equals, value = line.partition("#")[0].partition("=")
        if equals:
            found[name.strip()] = value.strip().strip("'")
    return found


def system_migrations() -> list[Migration]:
    """The system schema of a project database, in order."""
    return load(files(f"{_HERE}.system"))


def version_of(migrations: Sequence[Migration]) -> int:
    """A schema's version: the number of its last migration. A template carries it in its name."""
    return max(m.number for m in migrations)


def template_name(version: int) -> str:
    """The template database of a schema version."""
    return f"loquat_template_{version}"


def statements(text: str) -> list[str]:
    """The statements of a script. Semicolons inside `$$` bodies do not part them."""
    parts = re.split(r"(\$\$.*?\$\$)", re.sub(r"--[^\n]*", "", text), flags=re.DOTALL)
    marked = "".join(p if n % 2 == 0 else p.replace(";", "\0") for n, p in enumerate(parts))
    return [s.replace("\0", ";").strip() for s in marked.split(";") if s.strip()]


async def bootstrap_cluster(connect: Connect, passwords: Mapping[str, str], *, all_again: bool = False) -> Sequence[Left]:
    """Makes roles, closes the system databases, builds `loquat_base`; brings every database of a cluster whose bootstrap is older to this one.

    Idempotent; one that was cut off is gone on with. `connect(database)` opens a superuser's connection; `passwords` are the services', by name.
    `all_again`: looks after every database, whatever the cluster says of itself. The answer: databases that could not be had, to be tried again.
    """
    async with _opened(connect, "postgres") as root:
        for statement in statements(_script("cluster.sql")):
            await root.execute(statement)  # one by one: CREATE DATABASE below refuses a transaction block
        await set_passwords(root, passwords)
        await _ensure_base(connect, root)
        await close_left_open(root)
        if not all_again and await bootstrap_of(root) >= BOOTSTRAP:
            return ()
        left = await upgrade_databases(connect, root, _script("base.sql"))
        if not left:
            await mark_bootstrap(root, BOOTSTRAP)
        return left


async def _ensure_base(connect: Connect, root: Connection) -> None:
    sealed = await root.fetchval("SELECT datistemplate FROM pg_database WHERE datname = $1", _BASE)
    if sealed is None:
        await root.execute(
            compose(
                "CREATE DATABASE {base} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C.UTF-8'",
                base=Ident(_BASE),
            )
        )
    if not sealed:
        await root.execute(compose("REVOKE ALL ON DATABASE {base} FROM PUBLIC", base=Ident(_BASE)))
        await _build_base(connect)
        await root.execute(compose("ALTER DATABASE {base} IS_TEMPLATE true ALLOW_CONNECTIONS false", base=Ident(_BASE)))


async def _build_base(connect: Connect) -> None:
    """Its script is one transaction, so a start that was cut off leaves nothing of it."""
    async with _opened(connect, _BASE) as base:
        if await base.fetchval("SELECT to_regnamespace('loquat')") is None:
            async with base.transaction():
                await base.execute(_script("base.sql"))


async def build_template(connect: Connect, migrations: Sequence[Migration] | None = None) -> str:
    """Builds and seals a template of the system schema; its name. Idempotent: a sealed one is never touched again.

    `connect` opens as loquat_schema_manager, no superuser. One at a time per cluster: a half-built template is taken for one that was cut
    off, and dropped.
    """
    migrations = system_migrations() if migrations is None else migrations
    name = template_name(version_of(migrations))
    template = Ident(name)
    async with _opened(connect, "postgres") as manager:
        sealed = await manager.fetchval("SELECT datistemplate FROM pg_database WHERE datname = $1", name)
        if sealed:
            return name
        if sealed is not None:
            await manager.execute(compose("DROP DATABASE {template} WITH (FORCE)", template=template))
        await manager.execute(compose("CREATE DATABASE {template} TEMPLATE loquat_base", template=template))
        await manager.execute(compose("REVOKE ALL ON DATABASE {template} FROM PUBLIC", template=template))
        async with _opened(connect, name) as builder:
            await migrate_system(builder, migrations)
        await manager.execute(compose("ALTER DATABASE {template} IS_TEMPLATE true ALLOW_CONNECTIONS false", template=template))
    return name


async def migrate_system(
    inside: Connection, migrations: Sequence[Migration], lock: AbstractAsyncContextManager[object] | None = None
) -> list[str]:
    """Brings the system schema of one database forward, as loquat_system; the names of the migrations applied.

    `lock` keeps others away. It is none of this database's: advisory locks are closed to everybody here.
    """
    await inside.execute("SET ROLE loquat_system")
    try:
        return await migrate(inside, schema="loquat", component="system", migrations=migrations, lock=lock or nullcontext())
    finally:
        if not inside.is_closed():
            await inside.execute("RESET ROLE")


def _script(name: str) -> str:
    return files(f"{_HERE}.bootstrap").joinpath(name).read_text()


@asynccontextmanager
async def _opened(connect: Connect, database: str) -> AsyncGenerator[Connection]:
    connection = await connect(database)
    try:
        yield connection
    finally:
        await connection.close(timeout=_CLOSE_LIMIT)
