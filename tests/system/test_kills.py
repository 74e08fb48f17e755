"""Every service killed with SIGKILL at every named point of a message's life: the ledger balances, the bot's rows and replies are there once."""

from __future__ import annotations

import pytest

from tests.system import webhooks
from tests.system.conftest import Running
from tests.system.world import World, balanced, until

POINTS = [
    "gateway.before_publish",
    "gateway.after_publish",
    "bot_runner.before_begin",
    "bot_runner.after_begin",
    "bot_runner.after_handler",
    "bot_runner.after_commit",
    "bot_runner.after_publish",
    "bot_runner.after_clear",
    "conversation_log.before_record",
    "conversation_log.after_record",
    "conversation_log.after_changes",
    "connector.after_queue",
    "connector.after_sending",
    "connector.after_accept",
    "connector.after_store",
    "connector.after_publish",
]


@pytest.mark.promise("P1")
@pytest.mark.promise("P2")
@pytest.mark.promise("P7")
@pytest.mark.parametrize("point", POINTS)
async def test_a_kill_there_loses_nothing_and_doubles_nothing(running: Running, world: World, killed: tuple[str, str], point: str) -> None:
    project, number = killed
    contact = f"49{POINTS.index(point):03}{number[-8:]}"
    running.arm(point)
    for n in range(3):
        await world.deliver_until_kept(
            webhooks.body(number, messages=[webhooks.text(contact, f"wamid.{number}.{point}.{n}", f"{point} {n}")])
        )

    async def fired() -> bool:
        return running.fired(point)

    await until(fired, f"{point} was passed")
    database = await world.database(project)
    prefix = f"{point} "

    async def heard() -> bool:
        if await database.fetchval("SELECT to_regclass('public.heard')") is None:
            return False  # the bot makes it with its first row
        return await database.fetchval("SELECT count(*) FROM public.heard WHERE starts_with(said, $1)", prefix) >= 3

    await until(heard, "the bot wrote its three rows")
    ledger = await world.quiet(project)
    assert balanced(ledger), ledger
    assert ledger["dead"] == 0
    assert await database.fetchval("SELECT count(*) FROM public.heard WHERE starts_with(said, $1)", prefix) == 3
    wanted = [f"{word}: {point} {n}" for n in range(3) for word in ("one", "two")]

    async def final() -> bool:
        rows = await database.fetch(
            "SELECT m.text, m.status FROM public.messages m WHERE m.direction = 'out' AND m.text LIKE '%' || $1 || '%' ORDER BY m.sent_at, m.id",
            prefix,
        )
        return sorted(r["text"] for r in rows) == sorted(wanted) and all(
            r["status"] in {"sent", "delivered", "read", "unknown"} for r in rows
        )

    async def unknown() -> set[str]:
        query = "SELECT m.text FROM public.messages m WHERE m.direction = 'out' AND m.text LIKE '%' || $1 || '%' AND m.status = 'unknown'"
        return {r["text"] for r in await database.fetch(query, prefix)}

    await until(final, f"six replies in a final state after {point}", 60)
    shown = [m["text"] for m in await world.got(number, contact, 0)]
    # Each at most once. One whose fate nobody could learn may be missing: the connector died between its write to the socket and the answer, at this
    # point or, with another message under way, at another of its own.
    assert len(shown) == len(set(shown))
    missing = set(wanted) - set(shown)
    assert missing <= await unknown()
    assert len(missing) <= (1 if point.startswith("connector.") else 0), missing
    assert shown == [w for w in wanted if w not in missing]
