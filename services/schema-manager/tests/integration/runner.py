"""A bot-runner that dies: lanes in order, each event through begin_run, handler, record_result, commit_run, outbox. Run by test_exactly_once.py.

`runner.py FOLDER NAME`: events and addresses come from FOLDER/work.json; what was published and what was finished goes to files there.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
from loquat_common.db import prepare

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]
    PoolConnection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

KILL: Final = 0.006  # chance of SIGKILL at each of 8 points
DROP: Final = 0.006  # chance of a lost connection there
SLEEP: Final = 0.01  # chance of a zombie that wakes up later
LENGTH: Final = 7  # events after which a conversation ends
LOOK_AGAIN: Final = (
    asyncpg.UniqueViolationError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.PostgresConnectionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)
NOT_OPEN: Final = "LQ003"


class Runner:
    """One process."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.work = folder, json.loads((folder / "work.json").read_text())
        self.dice = random.Random(f"{name} {os.getpid()}")  # noqa: S311  (a die, no secret)
        self.files = {n: os.open(folder / n, os.O_WRONLY | os.O_APPEND | os.O_CREAT) for n in ("published", "finished", "ways")}
        self.pools: dict[tuple[str, str], Pool] = {}

    async def run(self) -> None:
        """Until every lane is at its end."""
        done = set((self.folder / "finished").read_text().split())
        lanes: dict[str, list[dict[str, Any]]] = {}
        for event in self.work["events"]:
            if event["element"]["id"] not in done or self.dice.random() < 0.02:  # some finished ones come again
                lanes.setdefault(event["lane"], []).append(event)
        for database in {e["database"] for e in self.work["events"]}:
            for user in ("loquat_bot_runner", f"{database}_bot"):
                self.pools[database, user] = await asyncpg.create_pool(
                    host=self.work["host"], port=self.work["port"], database=database, user=user, password=self.work["password"],
                    min_size=0, max_size=3, init=prepare, statement_cache_size=0,
                )  # fmt: skip
        queue = list(lanes.values())
        self.dice.shuffle(queue)
        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(self.take(queue))

    async def take(self, queue: list[list[dict[str, Any]]]) -> None:
        """Lanes, one after the other."""
        while queue:
            for event in queue.pop():
                while not await self.attempt(event):  # noqa: ASYNC110  (the other side is another process)
                    await asyncio.sleep(self.dice.random() / 20)

    async def attempt(self, event: dict[str, Any]) -> bool:
        """Whether the event is finished."""
        try:
            return await self.handle(event)
        except LOOK_AGAIN as error:
            self.write("ways", type(error).__name__)
            return False
        except asyncpg.PostgresError as error:
            if error.sqlstate != NOT_OPEN:
                raise
            self.write("ways", "not_open")
            return False

    def write(self, name: str, word: str) -> None:
        """One word, durable against a SIGKILL of this process."""
        os.write(self.files[name], f"{word}\n".encode())

    async def handle(self, event: dict[str, Any]) -> bool:
        """The whole way of an event."""
        this = UUID(event["element"]["id"])
        async with self.pools[event["database"], "loquat_bot_runner"].acquire() as platform:
            begun = await platform.fetchrow("SELECT * FROM loquat.begin_run($1)", event["element"])
            assert begun is not None
            await self.hazard(platform)
            self.write("ways", begun["todo"])
            if begun["todo"] == "blocked":
                await platform.execute("SELECT * FROM loquat.commit_run($1)", begun["blocked_by"])
                return False
            outbox: list[dict[str, Any]] | None = begun["outbox"]
            if begun["todo"] != "done":
                result = await self.call_handler(event, begun) if begun["todo"] == "run" else None
                await self.hazard(platform)
                committed = await platform.fetchrow("SELECT * FROM loquat.commit_run($1, $2, $3)", this, begun["version"], result)
                assert committed is not None
                self.write("ways", committed["status"])
                if committed["status"] == "superseded":
                    return False
                outbox = committed["outbox"]
            await self.hazard(platform)
            for message in outbox or []:
                self.write("published", message["message_id"])
            await self.hazard(platform)
            await platform.execute("SELECT loquat.clear_outbox($1)", [this])
            await self.hazard(platform)
            self.write("finished", str(this))
            return True

    async def call_handler(self, event: dict[str, Any], begun: asyncpg.Record) -> dict[str, Any]:
        """What bot code and SDK do: count up the state, book in the project's own table, reply once or twice, end now and then."""
        count = int(begun["state"].removeprefix("s").replace("unstructured", "0")) + 1
        replies = [{"type": "text", "text": f"reply {count}.{n}"} for n in range(1 + count % 2)]
        result = {"state": f"s{count}", "replies": replies, "end": count == LENGTH}
        await asyncio.sleep(self.dice.random() / 100)
        if event["books"]:
            async with self.pools[event["database"], f"{event['database']}_bot"].acquire() as bot:
                async with bot.transaction(isolation=self.dice.choice(["read_committed", "repeatable_read"])):
                    await bot.execute("INSERT INTO public.bookings (event_id) VALUES ($1)", UUID(event["element"]["id"]))
                    await self.hazard(bot)
                    if self.work["recording"]:
                        await bot.execute("SELECT loquat.record_result($1, $2, $3)", UUID(event["element"]["id"]), begun["version"], result)
                    await self.hazard(bot)
                await self.hazard(bot)
        return result

    async def hazard(self, connection: PoolConnection) -> None:
        """Dies, loses the connection, or freezes for a moment."""
        chance = self.dice.random()
        if chance < KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if chance < KILL + DROP:
            connection.terminate()
        elif chance < KILL + DROP + SLEEP:
            await asyncio.sleep(self.dice.random() / 2)


if __name__ == "__main__":
    asyncio.run(Runner(Path(sys.argv[1]), sys.argv[2]).run())
