"""Numbers: attached, moved, let go. What comes meanwhile is kept, and belongs to exactly one project."""

from __future__ import annotations

import asyncio

import pytest

from tests.system import webhooks
from tests.system.test_life_of_messages import ANNA, bot
from tests.system.world import World, until


@pytest.mark.promise("P2")
@pytest.mark.promise("P4")
async def test_a_number_that_moves_loses_no_message_and_no_message_is_in_both_projects(world: World) -> None:
    old, new = await asyncio.gather(world.project("old", bot("echo")), world.project("new", bot("echo")))
    number = await world.number(old)
    wamids = [f"wamid.{number}.{n:02}" for n in range(30)]

    async def send(n: int) -> None:
        raw = webhooks.body(number, messages=[webhooks.text(ANNA, wamids[n], f"no {n:02}", at=n)])
        await world.deliver_until_kept(raw)

    for n in range(5):
        await send(n)
    order = {"phone_number_id": number, "waba_id": webhooks.WABA, "token": world.tokens[-1]}
    refused = await world.rest("POST", f"/v1/projects/{new}/numbers", order)
    assert (refused.status, refused.body["code"]) == (409, "number_taken")
    await world.good("POST", f"/v1/projects/{new}/numbers", {**order, "move_from": old})
    for n in range(5, 30):
        await send(n)
        await asyncio.sleep(0.3)  # the move takes its rest meanwhile

    databases = await world.database(old), await world.database(new)
    query = "SELECT wamid FROM public.messages WHERE direction = 'in' ORDER BY sent_at, wamid"

    async def all_there() -> bool:
        found = [[r["wamid"] for r in await d.fetch(query)] for d in databases]
        return sorted(found[0] + found[1]) == wamids

    await until(all_there, "every message is in exactly one project", 60)
    kept = [[r["wamid"] for r in await d.fetch(query)] for d in databases]
    assert kept[0] == wamids[: len(kept[0])]
    assert kept[1], "the new project got the later ones"
    assert [n["phone_number_id"] for n in (await world.good("GET", f"/v1/projects/{new}/numbers"))["items"]] == [number]
    assert (await world.good("GET", f"/v1/projects/{old}/numbers"))["items"] == []


@pytest.mark.promise("P6")
async def test_what_comes_for_a_number_that_nobody_has_waits_for_whoever_attaches_it(world: World) -> None:
    project = await world.project("late", bot("echo"))
    number = await world.number(project)
    await world.good("DELETE", f"/v1/projects/{project}/numbers/{number}")

    async def gone() -> bool:
        return (await world.good("GET", f"/v1/projects/{project}/numbers"))["items"] == []

    await until(gone, "the number is let go")
    stranger = number[::-1]
    await world.deliver_until_kept(webhooks.body(stranger, messages=[webhooks.text(ANNA, f"wamid.{stranger}.1", "is anybody there?")]))
    registered = {
        "phone_number_id": stranger,
        "webhook_url": f"{world.gateway}/webhooks/whatsapp",
        "app_secret": world.app_secret,
        "verify_token": "v" * 16,
    }
    await world.simulate("POST", "/api/numbers", registered)
    await world.good("POST", f"/v1/projects/{project}/numbers", {"phone_number_id": stranger, "waba_id": webhooks.WABA, "token": "EAAlate"})
    assert [m["text"] for m in await world.got(stranger, ANNA, 2)] == ["one: is anybody there?", "two: is anybody there?"]
