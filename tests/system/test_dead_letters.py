"""What a bot could not handle: listed, shown, tried again after a better version, or given up; accounted for all the time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.system import webhooks
from tests.system.world import World, balanced, until

BROKEN = "from loquat import Bot\n\nbot = Bot()\n\n\n@bot.fallback\nasync def handle(ctx):\n    raise ValueError('it cannot')\n"
ECHO = (Path(__file__).parent / "bots" / "echo.py").read_text()
ANNA, BERT = "4915112340001", "4915112340002"


@pytest.mark.promise("P7")
async def test_an_event_that_a_bot_cannot_handle_is_dead_redriven_or_discarded_and_never_lost(world: World) -> None:
    project = await world.project("broken", {"bot.py": BROKEN})
    await world.good("PUT", f"/v1/projects/{project}/bot/settings", {"on_failure": "hand_over", "apology": "Sorry!"})
    number = await world.number(project)
    for contact in (ANNA, BERT):
        body = webhooks.body(number, messages=[webhooks.text(contact, f"wamid.{number}.{contact}", f"from {contact}")])
        assert await world.deliver(body) == 200
    letters = f"/v1/projects/{project}/dead-letters"

    async def both() -> list[dict[str, Any]] | None:
        items = (await world.good("GET", letters))["items"]
        return items if len(items) == 2 else None

    dead = await until(both, "both events are dead after three tries", 60)
    ledger = await world.quiet(project)
    assert balanced(ledger)
    assert (ledger["accepted"], ledger["dead"]) == (2, 2)
    assert {(d["consumer"], d["reason"]) for d in dead} == {("bot-runner", "the bot failed 3 times")}
    conversations = f"/v1/projects/{project}/conversations"
    held = (await world.good("GET", f"{conversations}?holder=people&needs_attention=true"))["items"]
    assert {c["attention_event"] for c in held} == {d["event_id"] for d in dead}
    details = [await world.good("GET", f"{letters}/{d['id']}") for d in dead]
    by_contact = {d["event"]["lane"]: d["id"] for d in details}
    runs = (await world.good("GET", f"/v1/projects/{project}/bot/runs"))["items"]
    assert {(r["outcome"], r["error"]) for r in runs} == {("BotError", "ValueError: it cannot")}

    await world.good("POST", f"/v1/projects/{project}/bot/deployments", {"files": {"bot.py": ECHO}, "message": "better"})
    await world.good("POST", f"{letters}/{by_contact[ANNA]}/redrive")
    assert [m["text"] for m in await world.got(number, ANNA, 3)] == ["Sorry!", f"one: from {ANNA}", f"two: from {ANNA}"]
    await world.good("POST", f"{letters}/{by_contact[BERT]}/discard", {"reason": "the contact was answered by phone"})
    ledger = await world.quiet(project)
    assert balanced(ledger)
    assert (ledger["handled"], ledger["discarded"], ledger["dead"]) == (1, 1, 0)
    assert (await world.good("GET", letters))["items"] == []
    assert (await world.rest("POST", f"{letters}/{by_contact[BERT]}/redrive")).status == 404
    assert [m["text"] for m in await world.got(number, BERT, 1)] == ["Sorry!"]
    assert (await world.good("GET", f"{conversations}?needs_attention=true"))["items"] == []
    (left,) = (await world.good("GET", f"{conversations}?holder=people"))["items"]
    await world.good("POST", f"{conversations}/{left['id']}/release")

    async def back() -> bool:
        return (await world.good("GET", f"{conversations}/{left['id']}"))["holder"] == "bot"

    await until(back, "the bot has the conversation again", 10)
