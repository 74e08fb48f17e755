"""The wiring of the bot-runner."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

from loquat_common import metrics
from loquat_common.bus.deferred import DeadLetters
from loquat_common.bus.factory import open_bus
from loquat_common.bus.port import Bus, Table
from loquat_common.client import InternalClient
from loquat_common.crypto import KeyRing
from loquat_common.db import ProjectPools, as_service
from loquat_common.deadletters import DeadLetterApi
from loquat_common.departures import Departures
from loquat_common.directory import Directory
from loquat_common.failpoints import Failpoints
from loquat_common.http import Api, internal_auth
from loquat_common.lifecycle import Lifecycle, Server
from loquat_common.logs import get_logger
from loquat_common.retention import Retention
from loquat_common.service import Service
from loquat_common.tokens import Signer, Verifier
from loquat_events.catalog import DEPLOYMENTS, DIRECTORY, INBOX
from loquat_sandbox import Level, Sandbox, measure

from loquat_bot_runner.adapters.aside import Aside
from loquat_bot_runner.adapters.automations import Automations
from loquat_bot_runner.adapters.bundles import Bundles
from loquat_bot_runner.adapters.bytecode import Bytecode
from loquat_bot_runner.adapters.canaries import Canaries
from loquat_bot_runner.adapters.clones import Clones, StagedCredentials
from loquat_bot_runner.adapters.configurations import Configurations
from loquat_bot_runner.adapters.deployments import Deployed, Publisher
from loquat_bot_runner.adapters.discards import Discards
from loquat_bot_runner.adapters.drafts import Drafts
from loquat_bot_runner.adapters.due import DueIndex
from loquat_bot_runner.adapters.egress import Names, Outside
from loquat_bot_runner.adapters.gate import Gate
from loquat_bot_runner.adapters.housing import Housing
from loquat_bot_runner.adapters.layers import Layers
from loquat_bot_runner.adapters.limits import ChosenLimits
from loquat_bot_runner.adapters.links import Room
from loquat_bot_runner.adapters.pointers import Pointers
from loquat_bot_runner.adapters.policies import Policies
from loquat_bot_runner.adapters.runs import ProjectRuns
from loquat_bot_runner.adapters.secrets import Secrets
from loquat_bot_runner.adapters.singles import Singles
from loquat_bot_runner.adapters.store import Store
from loquat_bot_runner.adapters.syncing import Syncing
from loquat_bot_runner.adapters.usage import Usage
from loquat_bot_runner.adapters.versions import Versions
from loquat_bot_runner.adapters.workers import Workers
from loquat_bot_runner.domain.destinations import Guard
from loquat_bot_runner.handlers.inbox import Inbox
from loquat_bot_runner.handlers.lapsing import Lapsing
from loquat_bot_runner.handlers.previewing import Previews
from loquat_bot_runner.handlers.rehearsal import Rehearsal
from loquat_bot_runner.handlers.timed import Timed
from loquat_bot_runner.handlers.timers import Firing
from loquat_bot_runner.http.api import BotApi
from loquat_bot_runner.http.deployments import DeploymentsApi
from loquat_bot_runner.http.egress import EgressApi
from loquat_bot_runner.http.files import FilesApi
from loquat_bot_runner.http.limits import LimitsApi
from loquat_bot_runner.http.people import PeopleApi
from loquat_bot_runner.http.preview import PreviewApi
from loquat_bot_runner.http.runs import RunsApi
from loquat_bot_runner.http.schedules import SchedulesApi
from loquat_bot_runner.http.settings import SettingsApi
from loquat_bot_runner.http.shelf import Shelf
from loquat_bot_runner.http.tools import ToolsApi
from loquat_bot_runner.http.versions import VersionsApi
from loquat_bot_runner.settings import Settings

_OF_PREVIEW: Final = 3  # connections to its database
_MISCONFIGURED: Final = 78  # EX_CONFIG of sysexits.h: starting it again changes nothing
_ADVICE: Final = "docs/adr/0009-the-sandbox.md says what each level needs; LOQUAT_MIN_ISOLATION is the least that is accepted"


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM."""
    async with Lifecycle(settings.drain_seconds) as life:
        sandbox = await _sandbox(settings, life)
        service = await Service.start(life, settings, "bot-runner", "loquat_bot_runner.migrations")
        _show_isolation(sandbox, service)
        pools = ProjectPools(
            as_service(settings.tenant_clusters, "loquat_bot_runner", statements=settings.prepared_statements),
            cap=settings.project_connections,
        )
        life.on_stop("project pools", pools.close)
        life.spawn("idle project connections", pools.run())
        provisioner, connector = [await _client(settings, life, service) for service in ("provisioner", "connector")]
        bus = open_bus(settings, "bot-runner", service.pool)
        await life.enter("bus", bus.start, bus.stop)
        service.health.add("bus", bus.ping)
        directory_table, deployments = bus.table(DIRECTORY), bus.table(DEPLOYMENTS)
        for name, table in (("directory", directory_table), ("deployments", deployments)):
            life.spawn(name, table.run())
            await life.until(table.caught_up())
        directory, deployed = Directory(directory_table), Deployed(deployments)
        secrets = Secrets(service.pool, KeyRing.from_json(settings.key_ring or ""))
        store, runs, failpoints = Store(service.pool, secrets.redacted), ProjectRuns(pools), Failpoints(settings.failpoints_dir)
        policies, limits = Policies(service.pool), ChosenLimits(service.pool, settings.bot_plan, settings.bot_most)
        credentials = StagedCredentials(provisioner)
        workers, singles = _workers(settings, life, sandbox, store, credentials, deployed, policies, limits, connector)
        gate, index = Gate(workers, Usage(pools), Versions(service.pool)), DueIndex(service.pool)
        firing, syncing = _clockwork(life, service, gate, index, pools, directory, (directory_table, deployments), bus, failpoints)
        timed = Timed(index, runs, bus, failpoints, _now, store.log, firing.nearer)
        inbox = Inbox(runs, workers, store, directory, deployed, bus, failpoints, _now, secrets, timed)
        subscription = bus.subscribe("bot-runner", [INBOX], inbox.handle)
        deployed.guards(subscription)
        service.follow(life, "inbox", subscription)
        publisher, canaries = _deployments(life, service, bus, deployed)
        letters = DeadLetters(service.pool)
        sweeps = (store.sweep_runs, store.sweep_logs, Versions(service.pool).sweep)
        life.spawn("retention", Retention(*(partial(sweep, settings.runs_days) for sweep in sweeps)).run())
        life.spawn("departures", _departures(directory_table, bus, letters, policies, limits, store).run())
        api = BotApi(runs, letters, directory, internal_auth(Verifier(settings.trusted_keys, "bot-runner")))
        for part in _bots(service, gate, publisher, canaries, store, policies, directory):
            part.add_to(api.api)
        SettingsApi(Configurations(pools), secrets, Pointers(service.pool), gate, directory).add_to(api.api)
        SchedulesApi(Automations(pools), index, syncing, directory, bus, _now).add_to(api.api)
        rehearsal, clones = Rehearsal(runs, singles, secrets, failpoints, _now), Clones(provisioner)
        PeopleApi(store, runs, directory, clones.drop_all).add_to(api.api)
        previews = Previews(rehearsal, clones, credentials, secrets.redacted, settings.previews_at_once)
        PreviewApi(previews, Versions(service.pool), Pointers(service.pool), store, directory).add_to(api.api)
        LimitsApi(limits, directory).add_to(api.api)
        DeadLetterApi(letters, Discards(directory, runs).mark).add_to(api.api)
        server = Server(api.api.app(), settings.http_host, settings.http_port)
        await life.enter("http", server.start, server.stop)
        await service.ready(life)
        await life.until_signalled()


class Part(Protocol):
    """Some operations of the bot API."""

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        ...


def _now() -> datetime:
    return datetime.now(UTC)


def _clockwork(
    life: Lifecycle,
    service: Service,
    gate: Gate,
    index: DueIndex,
    pools: ProjectPools,
    directory: Directory,
    tables: tuple[Table, Table],
    bus: Bus,
    failpoints: Failpoints,
) -> tuple[Firing, Syncing]:
    """What fires timers and schedules and tells of holds that are over, and what keeps schedules in line with deployments. `tables`: of projects, of deployments."""
    firing = Firing(index, directory, bus, failpoints, _now)
    syncing = Syncing(index, Automations(pools), Pointers(service.pool), gate, directory, failpoints, _now, firing.nearer)
    syncing.listens(*tables)
    life.spawn("timers", firing.run())
    life.spawn("holds", Lapsing(index.lapses, ProjectRuns(pools), directory, bus, failpoints, _now).run())
    life.spawn("schedules", syncing.run())
    return firing, syncing


def _deployments(life: Lifecycle, service: Service, bus: Bus, deployed: Deployed) -> tuple[Publisher, Canaries]:
    """What tells of deployments, and what ends those on trial."""
    publisher = Publisher(bus, Pointers(service.pool), _now)
    publisher.watches(deployed)
    canaries = Canaries(service.pool, Pointers(service.pool), publisher, deployed.suspects)
    life.spawn("untold deployments", publisher.run())
    life.spawn("canaries", canaries.run())
    return publisher, canaries


def _departures(projects: Table, bus: Bus, letters: DeadLetters, policies: Policies, limits: ChosenLimits, store: Store) -> Departures:
    """What drops all of a project that is gone."""

    async def forget(project: str) -> None:
        await bus.remove(DEPLOYMENTS, project=project, lane="bot")
        await letters.forget(project)
        await policies.forget(project)
        await limits.forget(project)
        await store.forget(project)

    return Departures(projects, store.projects, forget)


def _bots(
    service: Service, gate: Gate, publisher: Publisher, canaries: Canaries, store: Store, policies: Policies, directory: Directory
) -> Sequence[Part]:
    """Versions, deployments, the draft, runs."""
    versions, drafts, pointers = Versions(service.pool), Drafts(service.pool), Pointers(service.pool)
    shelf = Shelf(versions, drafts, Aside())
    deployments = DeploymentsApi(versions, pointers, publisher, canaries, gate, shelf, directory)
    tools = ToolsApi(pointers, versions, gate, store, directory)
    return VersionsApi(versions, pointers, shelf), deployments, FilesApi(drafts), RunsApi(store), EgressApi(policies, directory), tools


async def _client(settings: Settings, life: Lifecycle, service: str) -> InternalClient:
    client = InternalClient(settings.services[service], Signer("bot-runner", settings.signing_key or ""), service)
    await life.enter(f"{service} client", client.start, client.stop)
    return client


def _workers(
    settings: Settings,
    life: Lifecycle,
    sandbox: Sandbox,
    store: Store,
    credentials: StagedCredentials,
    deployed: Deployed,
    policies: Policies,
    limits: ChosenLimits,
    connector: InternalClient,
) -> tuple[Workers, Singles]:
    """Bots, and what is served at their doors; beside them those that are only tried out."""
    names = Names()
    life.on_stop("names", _soon(names.close))
    room, outside = Room(settings.bot_connections), Outside(names.lookup, Guard(settings.own_networks))
    bytecode = Bytecode(Aside())
    life.spawn("compiled bots", bytecode.run())
    bundles, layers = (
        Bundles(store, settings.bundles, bytecode.want),
        Layers(settings.bot_index.get_secret_value() if settings.bot_index else None),
    )
    life.on_stop("bots' packages", layers.close)
    life.spawn("unpacked bots", bundles.run())
    house = Housing(
        sandbox, credentials, limits.of, room, outside, policies.of, policies.seen, layers, connector, settings.prepared_statements
    )
    workers = Workers(store, bundles, house, most=settings.workers, idle=settings.worker_idle, in_use=deployed.in_use)
    life.on_stop("bots", workers.close)
    life.spawn("idle bots", workers.run())
    life.spawn("busy bots", workers.watch())
    life.spawn("bots' destinations", policies.run())
    life.spawn("bots' logs", workers.write_logs())
    return workers, Singles(bundles, house.beside(Room(_OF_PREVIEW * settings.previews_at_once, _OF_PREVIEW)))


async def _sandbox(settings: Settings, life: Lifecycle) -> Sandbox:
    """At the highest level that this machine gives, found by trying. Below the least that is wanted nothing is run, and what is missing is said."""
    settings.bundles.mkdir(parents=True, exist_ok=True)
    measured = await measure(settings.bundles)
    sandbox, log = measured.sandbox, get_logger()
    life.on_stop("sandbox", sandbox.close)
    say = log.info if sandbox.level > Level.NONE else log.warning
    say("bots.isolation", **sandbox.report(), missing=measured.missing)
    if sandbox.level < settings.least_isolation:
        log.error(
            "bots.isolation_too_low", isolation=int(sandbox.level), least=settings.least_isolation, missing=measured.missing, advice=_ADVICE
        )
        raise SystemExit(_MISCONFIGURED)
    life.spawn("standby zygote", sandbox.keep_standby())
    return sandbox


def _show_isolation(sandbox: Sandbox, service: Service) -> None:
    metrics.bot_isolation.set(sandbox.level)
    service.health.note("isolation", " ".join(f"{name}={value}" for name, value in sandbox.report().items()))
    service.health.add("sandbox", sandbox.start)


def _soon(close: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def step() -> None:
        close()

    return step
