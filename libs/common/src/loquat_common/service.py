"""What every service's wiring begins and ends with, so that its own app.py shows only what is its own."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, TypeVar

import uvloop
from loquat_events.catalog import Service as ServiceName
from pydantic import ValidationError
from pydantic_settings import SettingsError

from loquat_common.bootstrap import schema_of
from loquat_common.bus import deferred
from loquat_common.bus.port import BusUnavailable, Subscription
from loquat_common.db import DatabaseAway, open_pool
from loquat_common.health import Health
from loquat_common.lifecycle import Lifecycle, Server
from loquat_common.logs import configure, get_logger
from loquat_common.migrate import load, migrate
from loquat_common.settings import ServiceSettings

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

S = TypeVar("S", bound=ServiceSettings)
_PR_SET_DUMPABLE: Final = 4
_COLLECT_AFTER: Final = 20_000
"""Objects made and not yet freed until the collector looks. Its own 700 is passed by one webhook of a batch."""


@dataclass(frozen=True, slots=True)
class Service:
    """The pool on the control database, migrated, and the health of this process."""

    name: ServiceName
    settings: ServiceSettings
    pool: Pool
    health: Health

    @classmethod
    async def start(cls, life: Lifecycle, settings: ServiceSettings, name: ServiceName, migrations: str | None) -> Service:
        """Opens the pool, migrates the service's schema (the bus's rows, then its own files in package `migrations`): see `migrate`."""
        schema = schema_of(name)
        pool = await open_pool(
            settings.platform_dsn.get_secret_value(),
            search_path=f"{schema}, pg_catalog",
            application=name,
            statements=settings.prepared_statements,
        )
        life.on_stop("control database", pool.close)
        async with pool.acquire(timeout=10) as connection:
            post = settings.post_migrations
            await migrate(connection, schema=schema, component="bus", migrations=deferred.migrations(), post=post)
            if migrations is not None:
                await migrate(connection, schema=schema, component=name, migrations=load(files(migrations)), post=post)
        health = Health()

        async def ping() -> None:
            await pool.fetchval("SELECT 1", timeout=2)

        health.add("control database", ping)
        return cls(name, settings, pool, health)

    def follow(self, life: Lifecycle, name: str, subscription: Subscription) -> None:
        """Runs a subscription, drains it at the end, counts it for readiness."""
        life.spawn(f"subscription {name}", subscription.run())
        life.on_drain(f"subscription {name}", subscription.drain)

        async def ping() -> None:
            if not subscription.healthy():
                raise BusUnavailable(f"the subscription {name} has not heard from the bus lately")

        self.health.add(f"subscription {name}", ping)
        self.health.measure(f"subscription {name}", subscription.measure)

    async def ready(self, life: Lifecycle) -> None:
        """Opens the internal port, last: who asks there before is told that nothing listens."""
        server = Server(self.health.app(), self.settings.internal_host, self.settings.internal_port)
        await life.enter("internal http", server.start, server.stop)
        _settle()
        get_logger().info("service.ready", internal_port=server.port)


async def finish(name: ServiceName, settings: ServiceSettings) -> None:
    """Applies what waits, `post` files too: after a rollout, when nothing of the older release runs any more."""
    package = f"loquat_{name.replace('-', '_')}.migrations"
    async with Lifecycle(settings.drain_seconds) as life:
        chosen = settings.model_copy(update={"post_migrations": True})
        await Service.start(life, chosen, name, package if find_spec(package) is not None else None)


def run(name: ServiceName, settings: type[S], serve: Callable[[S], Coroutine[Any, Any, None]]) -> None:
    """The main function of a service: settings, logs, loop. Exits with 78 for wrong settings, 1 for a failure.

    With the arguments `migrate --post` it only does what `finish` says.
    """
    try:
        chosen = settings()  # pyright: ignore[reportCallIssue]  (from the environment)
    except ValidationError as error:
        sys.stderr.write(f"{name}: the settings are not usable\n")
        for e in error.errors(include_input=False, include_url=False):
            sys.stderr.write(f"  LOQUAT_{'__'.join(str(p) for p in e['loc']).upper()}: {e['msg']}\n")
        sys.exit(78)
    except SettingsError as error:
        sys.stderr.write(f"{name}: the settings are not usable\n  {error}: it is no JSON\n")
        sys.exit(78)
    configure(name, chosen.log_level)
    _keep_to_itself()
    try:
        uvloop.run(finish(name, chosen) if sys.argv[1:] == ["migrate", "--post"] else serve(chosen))
    except (DatabaseAway, BusUnavailable, OSError) as error:
        get_logger().error("service.failed", error=f"{type(error).__name__}: {error}")
        sys.exit(1)


def _settle() -> None:
    """What stands at the start stands to the end: the collector need not walk it, and rarely finds a cycle in what follows."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)


def _keep_to_itself() -> None:
    """Nobody else of this user reads our memory or environment through /proc: at isolation level 0 a bot may be of the same user."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
