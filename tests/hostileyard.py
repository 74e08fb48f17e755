"""Hostile bots, run by the real workers at a level of isolation, beside a warm neighbour that has to answer meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, cast
from uuid import UUID, uuid4

from loquat_bot_runner.adapters.bundles import Bundles
from loquat_bot_runner.adapters.credentials import Credentials, Login
from loquat_bot_runner.adapters.egress import Outside
from loquat_bot_runner.adapters.housing import Housing, LimitsOf
from loquat_bot_runner.adapters.links import Room
from loquat_bot_runner.adapters.workers import Workers
from loquat_bot_runner.domain.destinations import Address, Destination, Guard, Policy, Refused
from loquat_bot_runner.domain.limits import BotLimits
from loquat_bot_runner.errors import CallFailed
from loquat_bot_runner.ports import Task
from loquat_events.projects import ProjectListed
from loquat_sandbox import Level, Measured, measure

from tests.tenants import PASSWORD, Desk, Project, Tenants, message

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

HOME: Final = Path(__file__).parent.parent / "services/bot-runner/tests/hostile"
NEIGHBOUR: Final = "prj_neighbour"
_QUICK: Final = "from loquat import Bot\nbot = Bot()\n\n@bot.fallback\nasync def handle(ctx):\n    ctx.reply_text(ctx.event.text)\n"
_ALWAYS: Final = frozenset({"calls", "limits", "descriptors", "environment", "zygote", "process", "egress", "bridge", "database"})
CALL_LIMIT: Final = 10.0
SHORT: Final = 0.7
"""Seconds of a call of a bot that would take all there are."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How one attempt of a bot ended, and which layers it says would have stopped it, each with its answers."""

    name: str
    stops: dict[str, str]
    outcome: str

    def layers(self, standing: Collection[str]) -> list[str]:
        """Those that stand."""
        return [layer for layer in self.stops if layer in standing]

    def stopped_by(self, standing: Collection[str]) -> str | None:
        """The first layer that stands and answers so; None: nothing did, it got through or broke off for another reason."""
        return next((layer for layer in self.layers(standing) if self.outcome in self.stops[layer].split("|")), None)


class Names(Guard):
    """What stands for the outside, and what was looked up: one address of this machine passes as public; nobody listens there."""

    def __init__(self) -> None:
        super().__init__()
        self.checked: list[tuple[str, bool]] = []
        self._rebound = 0

    def outside(self, address: Address) -> bool:
        return address == IPv4Address("127.0.0.2") or super().outside(address)

    def check(self, wanted: Destination, found: Sequence[Address]) -> None:
        try:
            super().check(wanted, found)
        except Refused:
            self.checked.append((wanted.host, False))
            raise
        self.checked.append((wanted.host, True))

    async def lookup(self, name: str) -> list[str]:
        match name:
            case "rebinding.example.com":
                self._rebound += 1
                return ["127.0.0.2"] if self._rebound == 1 else ["127.0.0.1"]
            case "both.example.com":
                return ["127.0.0.2", "127.0.0.1"]
            case "inside.example.com":
                return ["10.1.2.3"]
            case _:
                return ["127.0.0.2"]


@dataclass(slots=True)
class Shelf:
    """The store, as far as workers ask it."""

    lines: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    async def files(self, project: str, version: str) -> dict[str, str]:
        if project == NEIGHBOUR:
            return {"bot.py": _QUICK}
        return {"bot.py": (HOME / "bots" / version / "bot.py").read_text(), "attempts.py": (HOME / "attempts.py").read_text()}

    def said(self, _project: str, text: str) -> str:
        return text

    async def log(self, project: str, _event: UUID | None, _level: str, lines: list[str]) -> None:
        self.lines.setdefault(project, []).extend(lines)


@dataclass(slots=True)
class Yard:
    """One sandbox, one neighbour, and what bots must not reach."""

    level: Level
    measured: Measured
    workers: Workers
    impatient: Workers
    files: Bundles
    shelf: Shelf
    names: Names
    aim: dict[str, Any]
    own: Project
    desk: Desk
    knocks: list[str] = field(default_factory=list[str])
    """What was reached of all that should not be."""

    @property
    def standing(self) -> Collection[str]:
        """The layers that stand."""
        made, report = set[str](_ALWAYS), self.measured.sandbox.report()
        landlock = int(report["landlock"])
        made |= {name for name, since in (("files", 1), ("ports", 4), ("scope", 6)) if landlock >= since}
        made |= {"root", "network", "processes"} if self.level >= Level.CONTAINED else set[str]()
        return made | {name for name, stands in (("user", report["user_per_project"]), ("group", report["groups"] != "none")) if stands}

    async def call(self, bot: str, *, impatient: bool = False, project: str = "") -> list[str]:
        """The texts that it replies; raises CallFailed."""
        return [r["text"] for r in await self.result(bot, impatient=impatient, project=project)]

    async def result(self, bot: str, *, impatient: bool = False, project: str = "") -> list[dict[str, Any]]:
        """Its replies, checked; the event is open in its database."""
        workers = self.impatient if impatient else self.workers
        sent = message(f"phone:{uuid4().int % 10**12:012}")
        begun = await self.desk.begin(sent)
        event: dict[str, Any] = {"id": sent["id"], "type": "text", "text": "", "content": {}}
        task = _task(project or f"prj_{bot}", bot, event, begun["version"])
        process = (await workers._worker(task))._process
        doors = {"folder": process.folder, "postgres": process.postgres_port, "egress": process.egress_port}
        event["text"] = json.dumps({**self.aim, **doors})
        answer = await workers.call(task)
        return answer["replies"]

    async def attempts(self, bot: str) -> list[Ended]:
        """How each of its attempts ended."""
        return [Ended(*json.loads(text)) for text in await self.call(bot)]

    async def failure(self, bot: str, *, impatient: bool = False) -> CallFailed:
        """How its call failed."""
        try:
            answered = await self.call(bot, impatient=impatient)
        except CallFailed as failed:
            return failed
        raise AssertionError(f"it answered: {answered}")

    @asynccontextmanager
    async def beside_a_neighbour(self) -> AsyncGenerator[None]:
        """The neighbour answers all the while and is still the same process at the end."""
        before, answers, over = self.neighbour_pid(), 0, asyncio.Event()

        async def ask() -> None:
            nonlocal answers
            while not over.is_set() or not answers:
                assert await self.ask_neighbour(str(answers)) == str(answers)
                answers += 1
                await asyncio.sleep(0.005)

        asking = asyncio.create_task(ask(), name="neighbour")
        try:
            yield
        finally:
            over.set()
            await asking
        assert self.neighbour_pid() == before, "it did not even need another process"
        assert self.knocks == [], "nothing was reached"

    async def ask_neighbour(self, text: str) -> str:
        event: dict[str, Any] = {"id": str(uuid4()), "type": "text", "text": text, "content": {}}
        return (await self.workers.call(_task(NEIGHBOUR, "quick", event, 0)))["replies"][0]["text"]

    def neighbour_pid(self) -> int:
        return self.workers._workers[NEIGHBOUR, "quick"]._process.pid


def _task(project: str, version: str, event: dict[str, Any], state_version: int) -> Task:
    listed = ProjectListed(project_id=project, organization_id="o", name="p", state="ready", cluster="c", database="d")
    someone = {"id": str(UUID(int=1))}
    return Task(listed, version, event, someone, {**someone, "number_id": "1"}, "unstructured", state_version)


@asynccontextmanager
async def open_yard(tenants: Tenants, own: Project, other: Project, level: Level) -> AsyncGenerator[Yard]:
    """At `level`, or the highest below it that this machine gives."""
    async with AsyncExitStack() as stack:
        bundles = Path(tempfile.mkdtemp(prefix="loquat-bundles-"))
        stack.callback(shutil.rmtree, bundles)
        bundles.chmod(0o711)
        measured = await measure(bundles, level)
        stack.push_async_callback(measured.sandbox.close)
        shelf, names, knocks = Shelf(), Names(), list[str]()

        echo = await asyncio.start_server(_echo, "127.0.0.2", 0)
        stack.callback(echo.close)
        port: int = echo.sockets[0].getsockname()[1]

        async def policy(_project: str) -> Policy:
            return Policy(("*.example.com",), ports=(443, 80, port))

        room, outside = Room(per_project=6, wait=0.3), Outside(names.lookup, names, itself=lambda _: False)
        doorman, files = cast("Credentials", _Doorman(tenants, own, other)), Bundles(shelf, bundles)
        workers, impatient = (
            Workers(cast("Any", shelf), files, Housing(measured.sandbox, doorman, _limits(s), room, outside, policy), most=50, idle=60)
            for s in (CALL_LIMIT, SHORT)
        )
        for one in (workers, impatient):
            stack.push_async_callback(one.close)
            stack.callback(asyncio.create_task(one.write_logs(), name="logs").cancel)
        aim = {**stack.enter_context(_bait(knocks)), "bundles": str(bundles), "drowssap": PASSWORD[::-1], "echo": port}
        yard = Yard(measured.sandbox.level, measured, workers, impatient, files, shelf, names, aim, own, await Desk.of(own), knocks=knocks)
        assert await yard.ask_neighbour("warm") == "warm"
        yard.aim |= await _aims(yard, own, other, bundles, tenants)
        yield yard


def _limits(seconds: float) -> LimitsOf:
    async def limits(_project: str) -> BotLimits:
        return BotLimits(call_seconds=seconds, memory_bytes=160 << 20)

    return limits


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read(1000))
    writer.close()


@dataclass(slots=True)
class _Doorman:
    tenants: Tenants
    own: Project
    other: Project

    async def of(self, project: ProjectListed, *, anew: bool = False) -> Login:
        assert not anew
        whose = self.other if project.project_id == NEIGHBOUR else self.own
        return Login(self.tenants.cluster.host, self.tenants.cluster.port, whose.database, whose.names.login("bot"), PASSWORD)


async def _aims(yard: Yard, own: Project, other: Project, bundles: Path, tenants: Tenants) -> dict[str, Any]:
    """What a hostile bot is told, so that it need not guess."""
    neighbour = yard.workers._workers[NEIGHBOUR, "quick"]._process
    event = message("phone:15550100001")
    await (await Desk.of(other)).begin(event)
    return {
        "runner": os.getpid(),
        "neighbour": str(bundles / NEIGHBOUR / "quick"),
        "tcejorp": NEIGHBOUR[::-1],
        "neighbour_pid": neighbour.pid,
        "neighbour_postgres": neighbour.postgres_port if yard.level < Level.CONTAINED else 5433,
        "guess": f"{NEIGHBOUR}/quick",
        "cluster": tenants.cluster.port,
        "user": own.names.login("bot"),
        "database": own.database,
        "other_user": other.names.login("bot"),
        "other_database": other.database,
        "other_event": event["id"],
    }


@contextmanager
def _bait(knocks: list[str]) -> Generator[dict[str, Any]]:
    """A secret that everybody may read, a service on loopback, sockets of each kind. Whoever gets in touch is noted."""
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(prefix="loquat-bait-") as folder, _Sockets() as stack:
        Path(folder).chmod(0o777)
        secret = Path(folder, "secret")
        secret.write_text("the platform's")
        secret.chmod(0o644)
        abstract = f"loquat-bait-{uuid4().hex}"
        service = stack.listening("a service", socket.AF_INET, ("127.0.0.1", 0), loop, knocks)
        stack.listening("an abstract socket", socket.AF_UNIX, f"\0{abstract}", loop, knocks)
        stack.listening("a socket in a folder", socket.AF_UNIX, f"{folder}/stream", loop, knocks)
        datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        datagram.bind(f"{folder}/datagram")
        Path(folder, "datagram").chmod(0o777)
        stack.sockets.append(datagram)
        yield {
            "secret": str(secret),
            "service": service.getsockname()[1],
            "abstract": abstract,
            "unix": f"{folder}/stream",
            "unix_datagram": f"{folder}/datagram",
        }


class _Sockets:
    """Listening sockets, watched by the loop, closed at the end."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def listening(self, name: str, family: int, address: Any, loop: asyncio.AbstractEventLoop, knocks: list[str]) -> socket.socket:
        made = socket.socket(family, socket.SOCK_STREAM)
        made.bind(address)
        if family == socket.AF_UNIX and not str(address).startswith("\0"):
            Path(address).chmod(0o777)
        made.listen()
        made.setblocking(False)
        self.sockets.append(made)

        def knocked() -> None:
            made.accept()[0].close()
            knocks.append(name)

        loop.add_reader(made.fileno(), knocked)
        return made

    def __exit__(self, *_: object) -> None:
        for one in self.sockets:
            asyncio.get_running_loop().remove_reader(one.fileno())
            one.close()
