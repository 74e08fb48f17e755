"""How the stack of a folder is: its processes and their readiness, lag, deferred rows, databases."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import aiohttp
import asyncpg
from loquat_common.bootstrap import schema_of
from loquat_events.catalog import SERVICES

from loquat_cli.databases import CONTROL
from loquat_cli.home import Home, read_json

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_LIMIT: Final = 5.0  # seconds for each question
_LAG: Final = re.compile(r"^loquat_bus_lag_events\{.*\} ([0-9.e+]+)$", re.MULTILINE)
_AWAY: Final = (aiohttp.ClientError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, OSError)


@dataclass(frozen=True, slots=True)
class Line:
    """One process."""

    name: str
    state: str
    pid: int | None
    restarts: int
    last_end: str | None
    ready: str = ""
    lag: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Waiting:
    """Rows of one consumer."""

    consumer: str
    deferred: int
    dead: int


@dataclass(frozen=True, slots=True)
class Database:
    """One database and its size in bytes."""

    cluster: str
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Picture:
    """All of it at one moment."""

    state: Mapping[str, Any]
    lines: list[Line]
    waiting: list[Waiting] | None
    databases: list[Database] | None


async def look(home: Home) -> Picture | None:
    """None when nothing runs in the folder. What does not answer is missing in the picture, never an error."""
    if not home.running() or (state := read_json(home.state_file)) is None:
        return None
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_LIMIT)) as session:
        lines = await asyncio.gather(*(_line(session, state, name, p) for name, p in state["processes"].items()))
    waiting, databases = await asyncio.gather(_waiting(home, state), _databases(home, state))
    return Picture(state, list(lines), waiting, databases)


async def _line(session: aiohttp.ClientSession, state: Mapping[str, Any], name: str, process: Mapping[str, Any]) -> Line:
    shown = Line(name, process["state"], process["pid"], process["restarts"], process["last_end"])
    url = state.get("health", {}).get(name)
    if url is None:
        return shown
    try:
        async with session.get(f"{url}/metrics") as response:
            lags = _LAG.findall(await response.text())
        async with session.get(f"{url}/readyz") as response:
            health = await response.json()
    except _AWAY:
        return Line(name, shown.state, shown.pid, shown.restarts, shown.last_end, "no answer")
    wrong = [f"{k}: {v}" for k, v in health["checks"].items() if v != "ok"]
    lag = int(sum(float(n) for n in lags)) if lags else None
    return Line(name, shown.state, shown.pid, shown.restarts, shown.last_end, ", ".join(wrong) or "yes", lag, health["facts"])


async def _connect(home: Home, state: Mapping[str, Any], cluster: str, database: str) -> Connection:
    password = (home.path / cluster / "password").read_text().strip()
    dsn = f"postgresql://postgres:{quote(password, safe='')}@127.0.0.1:{state['ports'][cluster]}/{database}"
    return await asyncpg.connect(dsn, timeout=_LIMIT, command_timeout=_LIMIT)


async def _waiting(home: Home, state: Mapping[str, Any]) -> list[Waiting] | None:
    try:
        connection = await _connect(home, state, "platform", CONTROL)
        try:
            return [w for service in SERVICES if (w := await _of(connection, service, schema_of(service))) is not None]
        finally:
            await connection.close()
    except _AWAY:
        return None


async def _of(connection: Connection, consumer: str, schema: str) -> Waiting | None:
    if await connection.fetchval("SELECT to_regclass($1)", f"{schema}.deferred") is None:
        return None
    query = "SELECT count(*) FILTER (WHERE state = 'deferred'), count(*) FILTER (WHERE state = 'dead') FROM {}.deferred"
    row = await connection.fetchrow(query.format(schema))
    return Waiting(consumer, row[0], row[1]) if row is not None else None


async def _databases(home: Home, state: Mapping[str, Any]) -> list[Database] | None:
    found: list[Database] = []
    try:
        for cluster in ("platform", "tenants"):
            connection = await _connect(home, state, cluster, "postgres")
            try:
                rows = await connection.fetch(
                    "SELECT datname, pg_database_size(oid) AS size FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY 1"
                )
            finally:
                await connection.close()
            found += [Database(cluster, r["datname"], r["size"]) for r in rows]
    except _AWAY:
        return None
    return found
