"""A bot's process, or its zygote with all bots, is killed around the handler's commit: its rows and its replies are there once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal, cast

import pytest
from loquat_bot_runner.adapters.workers import Workers
from loquat_common.bus.port import Defer, Done, Retry
from loquat_events.catalog import OUTBOX
from loquat_events.conversations import MessageQueued
from loquat_sandbox import Level, Measured

from conftest import Platform
from tests.botbench import Bench, open_bench
from tests.system.world import until
from tests.tenants import Tenants

BOT = """
import asyncio
from loquat import Bot
from loquat.database import Database

bot = Bot()
POINT = {point!r}
commit = Database.commit


@bot.fallback
async def handle(ctx):
    await ctx.pool.execute("CREATE TABLE IF NOT EXISTS orders (said text); CREATE TABLE IF NOT EXISTS tries (at text)")
    first = await ctx.pool.fetchval("SELECT count(*) FROM tries") == 0

    async def pass_by(point):
        if first and point == POINT:
            await ctx.pool.execute("INSERT INTO tries VALUES ($1)", point)
            await asyncio.sleep(60)

    async def committing(self, *arguments):
        await pass_by("before the commit")
        await commit(self, *arguments)
        await pass_by("after the commit")

    Database.commit = committing
    await pass_by("before it writes")
    await ctx.db.execute("INSERT INTO orders VALUES ($1)", ctx.event.text)
    ctx.reply_text("taken")
"""
Victim = Literal["worker", "zygote"]


@pytest.mark.promise("P2")
@pytest.mark.parametrize("victim", ["worker", "zygote"])
@pytest.mark.parametrize("point", ["before it writes", "before the commit", "after the commit"])
async def test_what_a_killed_process_was_at_is_done_once(
    platform: Platform, bundles: Path, tenants: Tenants, measured: Measured, point: str, victim: Victim
) -> None:
    if victim == "zygote" and measured.sandbox.level is Level.NONE:
        pytest.skip("at isolation level 0 there is no zygote to kill")
    async with open_bench(platform, bundles, tenants, measured.sandbox) as bench:
        await bench.deploy(files={"bot.py": BOT.format(point=point)}, message="m")
        event = bench.message(text="tea")
        first = asyncio.ensure_future(bench.take(event))
        assert bench.project is not None
        root = await bench.project.root()

        async def there() -> bool:
            known = await root.fetchval("SELECT to_regclass('public.tries')")
            return known is not None and await root.fetchval("SELECT count(*) FROM public.tries") == 1

        await until(there, f"the bot is {point}", 10)
        kill(bench, measured, victim)
        assert isinstance(await first, (Retry if victim == "worker" else Defer) | Done), "a lost zygote is no failure of the bot"
        again = await bench.take(event, attempts=1)
        assert isinstance(again, Done)
        assert await root.fetchval("SELECT count(*) FROM public.orders WHERE said = 'tea'") == 1
        said = [e.data for e in bench.broker.events(OUTBOX) if isinstance(e.data, MessageQueued) and e.data.cause == event.id]
        assert {m.message.text for m in said} == {"taken"}
        assert len({m.message_id for m in said}) == 1


def kill(bench: Bench, measured: Measured, victim: Victim) -> None:
    """The only worker, or what it was forked from."""
    if victim == "worker":
        workers = cast("Workers", bench.inbox._bots)
        (worker,) = workers._workers.values()
        worker._process.kill()
    else:
        zygote = measured.sandbox._zygote
        assert zygote is not None
        assert zygote._now is not None
        zygote._now._process.kill()
