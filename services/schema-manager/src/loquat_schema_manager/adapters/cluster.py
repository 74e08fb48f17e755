"""A tenant cluster: what a superuser makes once, and the sealed template that projects are cloned from."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_common.migrate import load, migrate
from loquat_common.sql import Ident, compose

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

Connect = Callable[[str], Awaitable["asyncpg.Connection[asyncpg.Record]"]]

ADDRESS_SPACE: Final = 2 << 30
"""Bytes of a tenant cluster's backend: anybody may set work_mem, so the kernel is the only limit. 2 GB turned `work_mem = '6GB'` into an ERROR."""
_BASE: Final = "loquat_base"
_HERE: Final = "loquat_schema_manager.adapters"


def tenant_settings() -> dict[str, str]:
    """The settings of a tenant cluster (`bootstrap/cluster.conf`), by name."""
    found: dict[str, str] = {}
    for line in files(f"{_HERE}.bootstrap").joinpath("cluster.conf").read_text().splitlines():
        name, equals, value = line.partition("#")[0].partition("=")
        if equals:
            found[name.strip()] = value.strip().strip("'")
    return found


def statements(text: str) -> list[str]:
    """The statements of a script. Semicolons inside `$$` bodies do not part them."""
    parts = re.split(r"(\$\$.*?\$\$)", re.sub(r"--[^\n]*", "", text), flags=re.DOTALL)
    marked = "".join(p if n % 2 == 0 else p.replace(";", "\0") for n, p in enumerate(parts))
    return [s.replace("\0", ";").strip() for s in marked.split(";") if s.strip()]


async def bootstrap_cluster(connect: Connect, passwords: Mapping[str, str]) -> None:
    """Makes roles, closes the system databases, builds `loquat_base`. Idempotent.

    `connect(database)` opens a superuser's connection; `passwords` are the services', by name with underscores.
    """
    root = await connect("postgres")
    for statement in statements(files(f"{_HERE}.bootstrap").joinpath("cluster.sql").read_text()):
        await root.execute(statement)
    for service, password in passwords.items():
        await root.execute(
            await root.fetchval("SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)", f"loquat_{service}", password)
        )
    sealed = await root.fetchval("SELECT datistemplate FROM pg_database WHERE datname = $1", _BASE)
    if sealed is None:
        await root.execute(
            f"CREATE DATABASE {_BASE} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C.UTF-8'"
        )
    if not sealed:
        await root.execute(f"REVOKE ALL ON DATABASE {_BASE} FROM PUBLIC")
        await _build_base(connect)
        await root.execute(f"ALTER DATABASE {_BASE} IS_TEMPLATE true ALLOW_CONNECTIONS false")
    await root.close()


async def _build_base(connect: Connect) -> None:
    """Its script is one transaction, so a start that was cut off leaves nothing of it."""
    base = await connect(_BASE)
    try:
        if await base.fetchval("SELECT to_regnamespace('loquat')") is None:
            async with base.transaction():
                await base.execute(files(f"{_HERE}.bootstrap").joinpath("base.sql").read_text())
    finally:
        await base.close()


def schema_version() -> int:
    """The number of the last migration of the system schema: what a template's name carries."""
    return max(m.number for m in load(files(f"{_HERE}.system")))


async def build_template(connect: Connect) -> str:
    """Builds and seals this release's template; its name. Idempotent. `connect` opens as loquat_schema_manager."""
    name = f"loquat_template_{schema_version()}"
    manager = await connect("postgres")
    try:
        sealed = await manager.fetchval("SELECT datistemplate FROM pg_database WHERE datname = $1", name)
        if sealed:
            return name
        if sealed is not None:
            await manager.execute(compose("DROP DATABASE {name} WITH (FORCE)", name=Ident(name)))  # a build that was cut off
        await manager.execute(compose("CREATE DATABASE {name} TEMPLATE loquat_base", name=Ident(name)))
        await manager.execute(compose("REVOKE ALL ON DATABASE {name} FROM PUBLIC", name=Ident(name)))
        builder = await connect(name)
        await migrate_system(builder)
        await builder.close()
        await manager.execute(compose("ALTER DATABASE {name} IS_TEMPLATE true ALLOW_CONNECTIONS false", name=Ident(name)))
    finally:
        await manager.close()
    return name


async def migrate_system(inside: Connection, lock: AbstractAsyncContextManager[object] | None = None) -> list[str]:
    """Brings the system schema of one database forward, as loquat_system; the names of the migrations applied.

    `lock` keeps others away. It is none of this database's: advisory locks are closed to everybody here.
    """
    await inside.execute("SET ROLE loquat_system")
    try:
        return await migrate(
            inside, schema="loquat", component="system", migrations=load(files(f"{_HERE}.system")), lock=lock or nullcontext()
        )
    finally:
        await inside.execute("RESET ROLE")
