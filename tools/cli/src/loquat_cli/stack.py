"""The whole of Loquat on one machine: databases, bus, services, simulator, owner, demo project."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import aiohttp
from loquat_embedded.binaries import programs
from loquat_embedded.kafka import Kafka
from loquat_embedded.postgres import Cluster
from loquat_events.catalog import SERVICES, Service

from loquat_cli import demo
from loquat_cli.child import Child
from loquat_cli.courtesy import Courtesy
from loquat_cli.databases import bootstrap_platform, bootstrap_tenants, platform_cluster, tenants_cluster
from loquat_cli.errors import Trouble
from loquat_cli.home import Home
from loquat_cli.logfiles import last_lines
from loquat_cli.owner import Fresh, Owner, OwnerLost, create_owner
from loquat_cli.ports import Ports
from loquat_cli.process import Process, Startable
from loquat_cli.rest import Rest
from loquat_cli.restarts import Restarts
from loquat_cli.secrets import StackSecrets
from loquat_cli.services import Name, Plan, module
from loquat_cli.settings import StackSettings
from loquat_cli.supervisor import Supervisor

_READY_LIMIT: Final = 60.0  # seconds until all services answer; 3 to 5 are usual on two cores
_LOOK: Final = 0.1
_ON_TOP: Final = 15.0  # seconds beyond its drain that a service gets to end: time-outs of single resources
_SIMULATOR_PATIENCE: Final = 5.0
_OK: Final = 200


class NotUp(Trouble):
    """A process did not come up. The text says which, and its last words."""


class Stack:
    """Use as an async context manager: inside, everything answers; after it, nothing is left running.

    `tell` hears one short line a stage; `died` each process that died. `overrides` are environment variables by process name, `"*"` for all.
    With `with_demo=False` there is an owner, but no demo project.
    """

    def __init__(
        self,
        settings: StackSettings,
        *,
        tell: Callable[[str], None] = lambda _: None,
        died: Callable[[Process], None] = lambda _: None,
        overrides: Mapping[str, Mapping[str, str]] | None = None,
        restarts: Restarts | None = None,
        with_demo: bool = True,
    ) -> None:
        self.settings, self.home = settings, Home(settings.home)
        self._tell, self._overrides, self._with_demo = tell, overrides or {}, with_demo
        self.is_up = False
        self._open = AsyncExitStack()
        self.supervisor = Supervisor(
            self.home.state_file, restarts=restarts or Restarts(), log_bytes=int(settings.log_megabytes * (1 << 20)), died=died
        )

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._open.aclose()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._open.aclose()

    async def _start(self) -> None:
        self.home.acquire()
        self._open.callback(self.home.release)
        self.secrets = StackSecrets.load(self.home.secrets_file)
        ports = Ports.choose(self.settings)
        ports.check()
        await self._open.enter_async_context(self.supervisor)
        servers = await self._start_engines(ports)
        self.plan = Plan(
            self.settings,
            self.home.path,
            ports,
            self.secrets,
            self.platform,
            self.tenants,
            servers,
            os.environ,
            self._overrides,
            await asyncio.to_thread(programs),
        )
        self.gateway, self.simulator = self.plan.gateway, self.plan.simulator
        self.supervisor.note(
            gateway=self.gateway,
            simulator=self.simulator,
            bus=self.settings.bus,
            health={name: self.plan.health(name) for name in SERVICES},
            ports={"platform": self.platform.port, "tenants": self.tenants.port},
        )
        await self._start_services()
        self.owner = await self._owner()
        if self._with_demo:
            self.owner = await self._demo(self.owner)
        self.is_up = True

    async def _start_engines(self, ports: Ports) -> str:
        """The clusters, and Kafka where the bus is; where clients find it."""
        self._tell("starting the databases" + (" and Kafka" if ports.kafka else ""))
        home, durable = self.home.path, self.settings.durable
        self.platform = platform_cluster(home, ports.platform.number, durable=durable)
        self.tenants = tenants_cluster(home, ports.tenants.number, durable=durable)
        engines: list[tuple[str, Startable, Path]] = [
            ("platform", self.platform, self.platform.home / "log"),
            ("tenants", self.tenants, self.tenants.home / "log"),
        ]
        servers = ""
        if ports.kafka:
            kafka = Kafka(home / "kafka", port=ports.kafka[0].number, controller_port=ports.kafka[1].number)
            engines.append(("kafka", kafka, kafka.home / "log"))
            servers = kafka.servers
        await self.supervisor.start(engines)
        courtesy = asyncio.create_task(Courtesy(lambda: self.tenants.pid).run(), name="courtesy")
        self._open.callback(courtesy.cancel)
        async with asyncio.TaskGroup() as both:
            both.create_task(bootstrap_platform(self.platform.connect, self.secrets.platform_passwords))
            tenants = both.create_task(bootstrap_tenants(self.tenants, self.secrets))
        for left in tenants.result():
            self._tell(f"the walls of {left.database} are of an older release ({left.reason}); the next start tries again")
        return servers

    async def _start_services(self) -> None:
        self._tell("starting the services")
        # Stopped in reverse: the gateway takes in nothing new, the others finish, the simulator takes their last messages.
        phases: list[tuple[Name, ...]] = [("simulator",), tuple(n for n in SERVICES if n != "gateway"), ("gateway",)]
        await self.supervisor.start(*([(name, self._child(name), self.home.log(name)) for name in names] for names in phases))
        try:
            async with asyncio.timeout(_READY_LIMIT), asyncio.TaskGroup() as waiting:
                for name in SERVICES:
                    waiting.create_task(self.ready(name))
        except* NotUp as several:
            raise several.exceptions[0] from None
        except* TimeoutError:
            raise NotUp(f"not everything was ready within {_READY_LIMIT:g} s: see {self.home.logs}") from None

    def _child(self, name: Name) -> Child:
        simulator = name == "simulator"
        patience = _SIMULATOR_PATIENCE if simulator else self.settings.drain_seconds + _ON_TOP
        settle = self._introduce if simulator and self._with_demo else None
        return Child([sys.executable, "-m", module(name)], self.plan.environment(name), self.home.log(name), patience, settle)

    async def _introduce(self) -> None:
        await demo.introduce(
            self.simulator,
            self.secrets.demo_number,
            gateway=self.gateway,
            app_secret=self.secrets.app_secret,
            verify_token=self.secrets.verify_token,
        )

    def process(self, name: str) -> Process:
        """A service's, a cluster's (`platform`, `tenants`), or the simulator's: to be killed, stopped, started."""
        return self.supervisor.processes[name]

    async def ready(self, name: Service) -> None:
        """Returns when a service says that it is ready. The caller sets the limit.

        Raises:
            NotUp: it cannot be started.
        """
        process, url = self.process(name), f"{self.plan.health(name)}/readyz"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while True:
                if process.state in {"failed", "crash loop"}:
                    raise NotUp(self._words(process))
                try:
                    async with session.get(url) as response:
                        if response.status == _OK:
                            return
                except (aiohttp.ClientError, TimeoutError, OSError):
                    pass  # not yet
                await asyncio.sleep(_LOOK)

    def _words(self, process: Process) -> str:
        log = self.home.log(process.name)
        return "\n".join([f"{process.name} does not start ({process.last_end}); the end of {log}:", *last_lines(log, 8)])

    async def _owner(self) -> Owner:
        kept = Owner.load(self.home.owner_file)
        known = kept.model_dump() if kept is not None else (await self._new_owner()).model_dump()
        owner = Owner.model_validate(
            {
                "project_id": "",
                **known,
                "gateway": self.gateway,
                "simulator": self.simulator,
                "phone_number_id": self.secrets.demo_number.phone_number_id,
                "app_secret": self.secrets.app_secret,
                "verify_token": self.secrets.verify_token,
            }
        )
        owner.save(self.home.owner_file)
        self.home.new_owner_file.unlink(missing_ok=True)
        return owner

    async def _new_owner(self) -> Fresh:
        fresh = Fresh.kept(self.home.new_owner_file, self.settings.owner_email)
        if not await create_owner(self.plan.environment("gateway"), fresh):
            self.home.new_owner_file.unlink()
            raise OwnerLost(
                f"{self.home.owner_file} is gone, and keys are shown only once. Restore it, or begin anew in another LOQUAT_HOME"
            )
        return fresh

    async def _demo(self, owner: Owner) -> Owner:
        self._tell("looking after the demo project")
        async with Rest(self.gateway, owner.api_key) as rest:
            project = await demo.ensure_project(rest, owner.project_id)
            await demo.connect_number(rest, project, self.secrets.demo_number)
        owner = owner.model_copy(update={"project_id": project})
        owner.save(self.home.owner_file)
        return owner

    def hurry(self) -> None:
        """While it stops: kills what may still finish something. Nothing that was accepted is lost, some of it is done again at the next start."""
        self.supervisor.hurry()

    @property
    def logs(self) -> Path:
        """The folder of logs."""
        return self.home.logs

    @property
    def clusters(self) -> tuple[Cluster, Cluster]:
        """Platform and tenants."""
        return self.platform, self.tenants
