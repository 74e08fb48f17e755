"""Picks the engine. The only place that knows there are two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loquat_events.catalog import Service

from loquat_common.bus.port import Bus
from loquat_common.bus.postgres import PostgresBus
from loquat_common.settings import ServiceSettings

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]


def open_bus(settings: ServiceSettings, service: Service, pool: Pool) -> Bus:
    """The bus that the settings name, not started yet. `pool` is the service's on the control database: its schema holds the deferred rows."""
    if settings.bus == "kafka":
        from loquat_common.bus.kafka import KafkaBus  # noqa: PLC0415  (a laptop on the Postgres bus need not load the client)

        return KafkaBus(pool, settings, service)
    return PostgresBus(pool, settings.platform_dsn.get_secret_value(), service, lease=settings.bus_lease)
