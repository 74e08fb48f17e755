"""Versions are deployed while people write, through the gateway and real workers: each message is answered once, in order, and a refusal changes nothing."""

from __future__ import annotations

import asyncio

import pytest

from tests.system import webhooks
from tests.system.world import World, balanced

PEOPLE = [f"49151120000{k:02}" for k in range(3)]
EACH = 8


def saying(version: int) -> dict[str, str]:
    """A bot that says its version and what it heard."""
    return {
        "bot.py": f"from loquat import Bot\nbot = Bot()\n\n@bot.fallback\nasync def say(ctx):\n    ctx.reply_text('v{version} ' + ctx.event.text)\n"
    }


@pytest.mark.promise("P1")
@pytest.mark.promise("P3")
async def test_no_message_is_lost_or_out_of_order_while_versions_are_deployed_refused_and_tried_out(world: World) -> None:
    project = await world.project("deploying", saying(0))
    number = await world.number(project)
    at = f"/v1/projects/{project}/bot"

    async def write() -> None:
        for n in range(EACH):
            messages = [webhooks.text(person, f"wamid.{number}.{person}.{n}", f"no {n}", at=n) for person in PEOPLE]
            await world.deliver_until_kept(webhooks.body(number, messages=messages))

    async def deploy() -> None:
        await world.good("POST", f"{at}/deployments", {"files": saying(1), "message": "one"})
        refused = await world.rest("POST", f"{at}/deployments", {"files": {"bot.py": "import nothing_of_the_kind\n"}})
        assert (refused.status, refused.body["code"], refused.body["reasons"][0]["code"]) == (409, "deployment_refused", "does_not_load")
        tried = await world.good("POST", f"{at}/preview", {"message": {"text": "hi"}})
        assert (tried["database"], [r["text"] for r in tried["replies"]]) == ("clone", ["v1 hi"])
        await world.good("POST", f"{at}/deployments", {"files": saying(2), "canary": 50})
        again = await world.good("POST", f"{at}/preview", {"message": {"text": "ho"}, "preview_id": tried["preview_id"]})
        assert (again["contact_id"], again["conversation_id"]) == (tried["contact_id"], tried["conversation_id"])
        await world.good("POST", f"{at}/canary/promote", {})
        await world.good("POST", f"{at}/rollback", {"message": "back"})

    await asyncio.gather(write(), deploy())
    for person in PEOPLE:
        said = [m["text"].partition(" ")[2] for m in await world.got(number, person, EACH)]
        assert said == [f"no {n}" for n in range(EACH)]
    ledger = await world.quiet(project)
    assert balanced(ledger)
    assert (ledger["accepted"], ledger["handled"]) == (len(PEOPLE) * EACH,) * 2
    history = (await world.good("GET", f"{at}/deployments"))["items"]
    assert [d["kind"] for d in history] == ["rollback", "promote", "canary", "deploy", "deploy", "deploy"], (
        "the first one is the starter bot's"
    )
    last = await world.good("POST", f"/v1/projects/{project}/bot/versions", {"files": saying(3)})
    assert last["deployed"] is None
    states = await world.good("GET", f"{at}/states")
    assert [(s["state"], s["conversations"]) for s in states["items"]] == [("unstructured", len(PEOPLE))]
