"""The wiring of the connector."""

from __future__ import annotations

from datetime import UTC, datetime

from loquat_common.bus.deferred import DeadLetters
from loquat_common.bus.factory import open_bus
from loquat_common.crypto import KeyRing
from loquat_common.deadletters import DeadLetterApi
from loquat_common.departures import Departures
from loquat_common.directory import Directory
from loquat_common.failpoints import Failpoints
from loquat_common.http import internal_auth
from loquat_common.lifecycle import Lifecycle, Server
from loquat_common.service import Service
from loquat_common.tokens import Verifier
from loquat_events.catalog import ACCOUNTS, DIRECTORY, OUTBOX, PROJECTS, RECEIPTS, UNROUTED

from loquat_connector.adapters.accounts import Accounts
from loquat_connector.adapters.graph import Graph
from loquat_connector.adapters.media import MediaFiles
from loquat_connector.adapters.numbers import Numbers
from loquat_connector.adapters.people import ForgottenSends
from loquat_connector.adapters.queue import SendQueue
from loquat_connector.adapters.routes import Teller
from loquat_connector.adapters.sender import Sender
from loquat_connector.adapters.typing import Typing
from loquat_connector.domain.pacing import Pacing
from loquat_connector.handlers.leaving import Leaving
from loquat_connector.handlers.messages import Messages
from loquat_connector.handlers.people import People
from loquat_connector.http.api import NumberApi
from loquat_connector.http.media import MediaApi
from loquat_connector.http.people import PeopleApi
from loquat_connector.settings import Settings


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM."""
    async with Lifecycle(settings.drain_seconds) as life:
        service = await Service.start(life, settings, "connector", "loquat_connector.migrations")
        bus = open_bus(settings, "connector", service.pool)
        await life.enter("bus", bus.start, bus.stop)
        service.health.add("bus", bus.ping)
        numbers = Numbers(service.pool, KeyRing.from_json(settings.key_ring or ""))
        accounts, letters = Accounts(service.pool), DeadLetters(service.pool)
        queue, failpoints = SendQueue(service.pool, lease=settings.send_lease), Failpoints(settings.failpoints_dir)
        graph = Graph(settings.graph_url, settings.graph_version)
        await life.enter("graph client", graph.start, graph.stop)

        def attached() -> None:
            sender.wake()

        teller = Teller(queue, numbers, bus, failpoints, settings.moving_rest, lambda: datetime.now(UTC), attached)
        sender = Sender(queue, numbers, graph, Pacing(), failpoints, teller.wake)
        life.spawn("teller", teller.run())
        life.spawn("sender", sender.run())
        life.on_drain("sender", sender.drain)

        def changed() -> None:
            teller.wake()
            sender.wake()

        directory = bus.table(DIRECTORY)
        projects = Directory(directory)
        leaving = Leaving(directory, queue, numbers, accounts, letters.forget, settings.moving_rest, teller.wake)
        departures = Departures(directory, leaving.known, leaving.forget)
        life.spawn("directory", directory.run())
        await life.until(directory.caught_up())
        life.spawn("deletions that begin", leaving.run())
        life.spawn("departures", departures.run())
        life.spawn("retention", accounts.run())

        def gone(project: str, at: datetime) -> bool:
            return projects.is_gone(project, at, datetime.now(UTC))

        typing = Typing(numbers, graph, lambda: datetime.now(UTC))
        life.on_stop("typing", typing.stop)
        messages = Messages(gone, queue, numbers, accounts, failpoints, sender.wake, teller.wake, typing.begin)
        service.follow(life, "messages", bus.subscribe("connector", [OUTBOX, RECEIPTS, UNROUTED, ACCOUNTS], messages.handle))
        sends = ForgottenSends(service.pool)
        people = People(sends, failpoints, teller.wake)
        service.follow(life, "people", bus.subscribe("connector-people", [PROJECTS], people.handle))
        api = NumberApi(numbers, accounts, settings.moving_rest, changed, internal_auth(Verifier(settings.trusted_keys, "connector")))
        DeadLetterApi(letters).add_to(api.api)
        PeopleApi(sends, teller.wake).add_to(api.api)
        files = MediaFiles(settings.graph_url, settings.graph_version)
        await life.enter("media client", files.start, files.stop)
        MediaApi(numbers, files).add_to(api.api)
        server = Server(api.api.app(), settings.http_host, settings.http_port)
        await life.enter("http", server.start, server.stop)
        await service.ready(life)
        await life.until_signalled()
