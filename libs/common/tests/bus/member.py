"""A member of a group in a process of its own: `python -m libs.common.tests.bus.member ENGINE DSN GROUP SERVERS`. Says `handled` at its first event."""

from __future__ import annotations

import asyncio
import sys

from loquat_common.bus.kafka import KafkaBus
from loquat_common.bus.port import Done, Outcome, Received
from loquat_common.bus.postgres import PostgresBus
from loquat_common.db import open_pool
from loquat_common.settings import BusSettings
from loquat_events.catalog import INBOX

LEASE = 2.0


async def main(engine: str, dsn: str, group: str, servers: str) -> None:
    pool = await open_pool(dsn, search_path="bot_runner, pg_catalog")
    if engine == "kafka":
        settings = BusSettings(environment="test", bus="kafka", kafka_servers=servers, bus_lease=6, replica="frozen")
        bus = KafkaBus(pool, settings, "bot-runner")
    else:
        bus = PostgresBus(pool, dsn, "bot-runner", lease=LEASE)
    await bus.start()

    async def handle(received: Received) -> Outcome:
        del received
        sys.stdout.write("handled\n")
        sys.stdout.flush()
        return Done()

    await bus.subscribe(group, [INBOX], handle).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
