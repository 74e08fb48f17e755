"""Neighbours in one running stack: made, written to, looked at from outside."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import aiohttp
from loquat_cli.databases import CONTROL
from loquat_cli.stack import Stack

from tests.neighbours import CLOCK, COUNTER, KINDS, TABLES, Found, Kind, Neighbour, Person, Sent
from tests.system import webhooks
from tests.system.world import World, until

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

MAKERS: Final = 4  # projects that are made at the same time
TWICE: Final = 0.1  # share of webhooks that come again, as Meta's do
IN_FLIGHT: Final = 200  # webhooks that wait for their answer, at most
_REFUSED: Final = range(400, 500)
_WAITING: Final = """
SELECT format('%s messages are %s', count(*), state) FROM connector.sends WHERE state IN ('queued', 'sending') GROUP BY state
UNION ALL SELECT format('%s outcomes are not told', count(*)) FROM connector.outcomes HAVING count(*) > 0
UNION ALL SELECT format('%s timers are due', count(*)) FROM bot_runner.due HAVING count(*) > 0
"""
_DEFERRED: Final = "SELECT format('%s: %s events are deferred: %s', '{0}', count(*), min(reason)) FROM {0}.deferred WHERE state = 'deferred' HAVING count(*) > 0"
_UNSURE: Final = """
SELECT a.started_at FROM connector.sends AS s JOIN connector.attempts AS a ON a.message_id = s.message_id AND a.n = s.attempts WHERE s.state = 'unknown'"""


@dataclass(slots=True)
class Settlement:
    """Projects with bots of many kinds, and people who write to them."""

    stack: Stack
    world: World
    chance: random.Random
    neighbours: list[Neighbour] = field(default_factory=list[Neighbour])
    refused: list[str] = field(default_factory=list[str])
    """Deployments that should not have been."""
    deployed: int = 0

    async def settle(self, projects: int, people: int) -> None:
        """The projects, each with its bot, tables, number and people."""
        gate = asyncio.Semaphore(MAKERS)

        async def one(n: int) -> None:
            async with gate:
                kind = KINDS[n % len(KINDS)]
                project = await self.world.project(f"{kind.name} {n}")
                await until(lambda: self._first(project, kind), f"{kind.name} {n} has its bot")
                await self.world.good("POST", f"/v1/projects/{project}/database/sql", {"sql": TABLES, "read_only": False})
                who = [Person(f"49{n:05}{k:05}") for k in range(kind.people or people)]
                self.neighbours.append(Neighbour(project, await self.world.number(project), kind, who))

        async with asyncio.TaskGroup() as group:
            for n in range(projects):
                group.create_task(one(n))
        self.neighbours.sort(key=lambda n: n.people[0].contact)  # the seed's choices do not hang on who was ready first
        await self._find_databases()

    async def _first(self, project: str, kind: Kind) -> bool:
        """Its bot; refused while the runner has not heard yet that the project is ready."""
        answer = await self.world.rest("POST", f"/v1/projects/{project}/bot/deployments", {"files": kind.files, "message": "first"})
        assert answer.status in {201, 409}, answer
        return answer.status == 201

    async def _find_databases(self) -> None:
        root, of = await self.stack.tenants.connect(), {n.project: n for n in self.neighbours}
        for row in await root.fetch("SELECT datname FROM pg_database WHERE datname ^@ 'p_' AND datallowconn"):
            inside = await self.stack.tenants.connect(row["datname"])
            of[await inside.fetchval("SELECT project FROM loquat.identity")].database = row["datname"]
            await inside.close()
        await root.close()

    async def write(self, seconds: float, rate: float) -> None:
        """Messages due by the clock, whoever answers: a webhook that must be repeated keeps its person silent and nobody else."""
        began = time.monotonic()
        everybody = [(n, p) for n in self.neighbours for p in n.people]
        async with asyncio.TaskGroup() as group:
            for tick in range(int(seconds * rate)):
                neighbour, person = self.chance.choice(everybody)
                again = self.chance.random() < TWICE
                if not person.busy and sum(p.busy for _, p in everybody) < IN_FLIGHT:
                    person.busy = True
                    group.create_task(self._say(neighbour, person, again=again))
                await asyncio.sleep(max(0.0, began + (tick + 1) / rate - time.monotonic()))

    async def _say(self, neighbour: Neighbour, person: Person, *, again: bool) -> None:
        n = len(person.wamids)
        wamid = f"wamid.{person.contact}.{n}"
        raw = webhooks.body(neighbour.number, messages=[webhooks.text(person.contact, wamid, f"{person.contact}:{n}")])
        await self.world.deliver_until_kept(raw)
        person.wamids.append(wamid)
        if again:
            await self.world.deliver(raw)
        person.busy = False

    async def deploy(self) -> bool:
        """A bot once more, as another version of what it was; whether that was answered well."""
        neighbour = self.chance.choice(self.neighbours)
        self.deployed += 1
        code = f"{neighbour.kind.files['bot.py']}\n# {self.deployed}\n"
        body = {"files": {"bot.py": code}, "message": "again"}
        try:
            answer = await self.world.rest("POST", f"/v1/projects/{neighbour.project}/bot/deployments", body)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        if answer.status in _REFUSED:
            self.refused.append(f"{neighbour.name}: a deployment is refused: {answer.status} {answer.body}")
        return answer.status < _REFUSED.start

    async def end_schedules(self) -> None:
        """Nothing begins by itself any more."""
        for neighbour in self.neighbours:
            if neighbour.kind is CLOCK:
                path = f"/v1/projects/{neighbour.project}/bot/schedules/tick"
                await self.world.good("PATCH", path, {"active": False})

    async def waiting(self) -> list[str]:
        """What is still under way in the control database."""
        root = await self.stack.platform.connect(CONTROL)
        try:
            schemas = await root.fetch("SELECT schemaname AS name FROM pg_tables WHERE tablename = 'deferred' ORDER BY 1")
            query = " UNION ALL ".join([_WAITING, *(_DEFERRED.format(s["name"]) for s in schemas)])
            return [r[0] for r in await root.fetch(query)]
        finally:
            await root.close()

    async def unsure(self) -> list[float]:
        """When the attempts began of messages whose fate nobody knows (`time.time()`)."""
        root = await self.stack.platform.connect(CONTROL)
        try:
            return [r["started_at"].timestamp() for r in await root.fetch(_UNSURE)]
        finally:
            await root.close()

    async def found(self, neighbour: Neighbour) -> Found:
        """What has come of what people wrote to a project."""
        inside = await self.stack.tenants.connect(neighbour.database)
        try:
            sent = await inside.fetch("SELECT text, status FROM public.messages WHERE direction = 'out' ORDER BY sent_at, id")
            wamids = await inside.fetch("SELECT wamid FROM public.messages WHERE direction = 'in'")
            rows = await inside.fetch("SELECT said FROM public.heard ORDER BY n")
            ticks = await inside.fetch("SELECT (extract(epoch FROM due_at) / 60)::int FROM public.ticks ORDER BY 1")
            total = None
            if neighbour.kind is COUNTER:
                total = await inside.fetchval("SELECT (value #>> '{}')::int FROM loquat.bot_memories WHERE key = 'total'")
        finally:
            await inside.close()
        return Found(
            wamids=[r[0] for r in wamids],
            rows=[r[0] for r in rows],
            sent=[Sent(r["text"], r["status"]) for r in sent],
            shown={p.contact: await self._shown(neighbour, p) for p in neighbour.people},
            ledger=await self.world.good("GET", f"/v1/projects/{neighbour.project}/ledger"),
            total=total,
            ticks=[r[0] for r in ticks],
        )

    async def _shown(self, neighbour: Neighbour, person: Person) -> list[str]:
        """By the person's phone."""
        path = f"/api/messages?phone_number_id={neighbour.number}&contact={person.contact}"
        return [m["text"] for m in (await self.world.simulate("GET", path))["messages"]]

    async def evidence(self, neighbour: Neighbour) -> list[str]:
        """What the platform itself says of a project in which something is wrong."""
        letters = (await self.world.good("GET", f"/v1/projects/{neighbour.project}/dead-letters"))["items"]
        runs = (await self.world.good("GET", f"/v1/projects/{neighbour.project}/bot/runs"))["items"]
        failed = Counter(f"{r['outcome']}: {r['error']}" for r in runs if r["outcome"] != "handled")
        return [f"  dead: {letter}" for letter in letters] + [f"  run: {words} ({times} times)" for words, times in failed.items()]
