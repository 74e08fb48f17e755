"""A timer and a schedule through the whole stack, bot-runner killed with SIGKILL at each point that is theirs alone: said once, the ledger balances."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.system import webhooks
from tests.system.conftest import Running
from tests.system.world import World, balanced, until

BOT = """
from datetime import timedelta
from loquat import Bot
bot = Bot()


@bot.fallback
async def ask(ctx):
    await ctx.timers.set("later", after=timedelta(seconds=1), data=ctx.event.text)


@bot.on_timer("later")
async def later(ctx):
    await ctx.db.execute("CREATE TABLE IF NOT EXISTS fired (said text)")
    await ctx.db.execute("INSERT INTO fired VALUES ($1)", ctx.event.data)
    ctx.reply_text(f"later: {ctx.event.data}")


@bot.schedule("0 0 1 1 *", tz="Europe/Berlin")
async def greet(ctx):
    for row in await ctx.db.fetch("SELECT id FROM contacts"):
        await ctx.send(row["id"], "greetings")
"""
POINTS = ("after_arm", "after_fire", "after_orders")


@pytest.mark.promise("P2")
@pytest.mark.promise("P7")
async def test_a_timer_and_a_schedule_speak_once_whoever_dies(running: Running, world: World) -> None:
    project = await world.project("Later", {"bot.py": BOT})
    number, contact = await world.number(project), "4915100000001"
    for point in POINTS:
        running.arm(f"bot_runner.{point}")
    body = webhooks.body(number, messages=[webhooks.text(contact, f"wamid.{uuid4().hex}", "hi")])
    await world.deliver_until_kept(body)
    assert [m["text"] for m in await world.got(number, contact, 1)] == ["later: hi"]
    path, sent = f"/v1/projects/{project}/bot/schedules/greet/runs", {"Idempotency-Key": uuid4().hex}

    async def ordered() -> bool:
        return (await world.rest("POST", path, headers=sent)).status == 202  # else who serves it is being restarted

    await until(ordered, "the schedule is run by hand")
    await ordered()
    assert [m["text"] for m in await world.got(number, contact, 2)] == ["later: hi", "greetings"]

    async def dead() -> bool:
        return all(running.fired(f"bot_runner.{point}") for point in POINTS)

    await until(dead, "bot-runner died at every point")
    ledger = await world.quiet(project)
    assert (balanced(ledger), ledger["handled"]) == (True, 4), ledger
    database = await world.database(project)
    assert await database.fetchval("SELECT count(*) FROM public.fired") == 1
    senders = await database.fetch("SELECT sender FROM public.messages WHERE direction = 'out' ORDER BY sender")
    assert [r["sender"] for r in senders] == ["automation", "bot"]
    assert len(await world.got(number, contact, 2)) == 2
    (schedule,) = (await world.good("GET", f"/v1/projects/{project}/bot/schedules"))["items"]
    assert (schedule["name"], schedule["active"], schedule["next_due"] is not None) == ("greet", True, True)
    assert [r["outcome"] for r in (await world.good("GET", path))["items"]] == ["handled"]
