"""The whole way, on both engines: signed webhooks in, each project's own bot run, replies out, everything recorded once."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

from tests.system import webhooks
from tests.system.world import World, balanced, until

BOTS = Path(__file__).parent / "bots"
ANNA, BERT = "4915112345671", "4915112345672"


def bot(name: str) -> dict[str, str]:
    return {"bot.py": (BOTS / f"{name}.py").read_text(), "loquat.toml": f'name = "{name}"\n'}


async def deliver_three_times(world: World, raw: bytes) -> None:
    """Meta delivers to every subscribed app and repeats at will: duplicates are normal."""
    assert [await world.deliver(raw) for _ in range(3)] == [200, 200, 200]


@pytest.mark.promise("P1")
@pytest.mark.promise("P2")
@pytest.mark.promise("P3")
@pytest.mark.promise("P4")
async def test_two_projects_with_their_own_bots_get_their_own_messages_once_and_answer_in_order(world: World) -> None:
    echo, menu = await asyncio.gather(world.project("echo", bot("echo")), world.project("menu", bot("menu")))
    one, two = await world.number(echo), await world.number(menu)

    await deliver_three_times(world, webhooks.body(one, messages=[webhooks.text(ANNA, f"wamid.{one}.1", "first")]))
    await deliver_three_times(world, webhooks.body(two, messages=[webhooks.text(ANNA, f"wamid.{two}.1", "hi")]))
    shown = await world.got(two, ANNA, 1)
    assert shown[0]["type"] == "interactive"
    await deliver_three_times(world, webhooks.body(two, messages=[webhooks.button(ANNA, f"wamid.{two}.2", "tea", "Tea", at=5)]))

    assert [m["text"] for m in await world.got(one, ANNA, 2)] == ["one: first", "two: first"]
    assert [m["text"] for m in (await world.got(two, ANNA, 2))[1:]] == ["One tea for you"]

    for project, number, table, rows in ((echo, one, "heard", 1), (menu, two, "cups", 1)):
        ledger = await world.quiet(project)
        assert balanced(ledger), ledger
        database = await world.database(project)
        assert await database.fetchval(f"SELECT count(*) FROM public.{table}") == rows  # noqa: S608  (a constant)
        wamids = {r["wamid"] for r in await database.fetch("SELECT wamid FROM public.messages WHERE direction = 'in'")}
        assert wamids == {f"wamid.{number}.{n}" for n in range(1, len(wamids) + 1)}
        other = "cups" if table == "heard" else "heard"
        assert await database.fetchval("SELECT to_regclass($1)", f"public.{other}") is None


@pytest.mark.promise("P6")
async def test_every_kind_of_update_is_kept_once_and_statuses_rise(world: World) -> None:
    project = await world.project("kinds", bot("echo"))
    number = await world.number(project)
    wamid = f"wamid.{number}."
    await deliver_three_times(world, webhooks.body(number, messages=[webhooks.text(BERT, wamid + "text", "hello")]))
    replies = await world.got(number, BERT, 2)
    sent = replies[0]["id"]
    later = [
        webhooks.image(BERT, wamid + "image", "a picture", at=1),
        webhooks.reaction(BERT, wamid + "reaction", sent, "\N{THUMBS UP SIGN}", at=2),
        webhooks.unknown(BERT, wamid + "unknown", at=3),
    ]
    for update in later:
        await deliver_three_times(world, webhooks.body(number, messages=[update]))
    await deliver_three_times(world, webhooks.body(number, statuses=[webhooks.status(sent, "read", BERT)]))
    await deliver_three_times(world, webhooks.body(number, statuses=[webhooks.status(sent, "delivered", BERT)]))
    await world.quiet(project)

    database = await world.database(project)

    async def read() -> bool:
        return await database.fetchval("SELECT status FROM public.messages WHERE wamid = $1", sent) == "read"

    await until(read, "the first reply is read")
    rows = await database.fetch("SELECT wamid, type, raw::text AS raw FROM public.messages WHERE direction = 'in'")
    assert {r["wamid"].removeprefix(wamid): r["type"] for r in rows} == {
        "text": "text",
        "image": "image",
        "reaction": "reaction",
        "unknown": "hologram",
    }
    assert len(rows) == 4
    assert "\\ud800" in next(r["raw"] for r in rows if r["type"] == "hologram")


@pytest.mark.promise("P2")
@pytest.mark.promise("P7")
async def test_a_body_of_fifty_updates_delivered_three_times_is_fifty_messages_in_order(world: World) -> None:
    project = await world.project("fifty", bot("echo"))
    number = await world.number(project)
    people = [f"49151123456{k:02}" for k in range(5)]
    updates = [webhooks.text(people[n % 5], f"wamid.{number}.{n:02}", f"no {n:02}", at=0 + n) for n in range(50)]
    await deliver_three_times(world, webhooks.body(number, messages=updates))
    for k, contact in enumerate(people):  # ten updates each: WhatsApp lets 45 messages go to one person at once
        said = [m["text"] for m in await world.got(number, contact, 20)]
        assert said == [f"{word}: no {n:02}" for n in range(50) if n % 5 == k for word in ("one", "two")]
    ledger = await world.quiet(project)
    assert balanced(ledger)
    assert (ledger["accepted"], ledger["handled"], ledger["dead"]) == (50, 50, 0)
    database = await world.database(project)
    assert await database.fetchval("SELECT count(*) FROM public.heard") == 50
    assert await database.fetchval("SELECT count(*) FROM public.messages WHERE direction = 'out'") == 100


async def test_a_project_that_was_given_no_bot_answers_hello_with_the_starter_bot(world: World) -> None:
    project = await world.project("starter")
    number = await world.number(project)
    assert await world.deliver(webhooks.body(number, messages=[webhooks.text(ANNA, f"wamid.{number}.1", "hello")])) == 200
    assert len(await world.got(number, ANNA, 1)) >= 1


SLOW = """
import asyncio
from loquat import Bot
bot = Bot()


async def seen(ctx, table):
    while not await ctx.pool.fetchval("SELECT to_regclass($1) IS NOT NULL", f"public.{table}"):
        await asyncio.sleep(0.02)


@bot.text("hello")
async def quick(ctx):
    ctx.reply_text("hello")


@bot.fallback
async def slow(ctx):
    await ctx.typing()
    await seen(ctx, "typing_seen")
    await ctx.reply_now("one moment")
    await seen(ctx, "moment_seen")
    ctx.reply_text("done")
"""


async def test_a_slow_handler_shows_that_it_writes_and_speaks_before_it_has_ended(world: World) -> None:
    project = await world.project("slow", {"bot.py": SLOW})
    number, database = await world.number(project), await world.database(project)

    async def write(text: str) -> None:
        await world.simulate("POST", "/api/messages", {"phone_number_id": number, "from": ANNA, "text": text})

    async def typing() -> bool:
        return (await world.simulate("GET", f"/api/messages?phone_number_id={number}&contact={ANNA}"))["typing"]

    await write("hello")  # all that begins slowly has begun when it is answered
    await world.got(number, ANNA, 1)
    await write("hi")
    await until(typing, "the phone shows that somebody is writing")
    await database.execute("CREATE TABLE public.typing_seen ()")
    assert [m["text"] for m in await world.got(number, ANNA, 2)] == ["hello", "one moment"]
    assert not await typing()
    await database.execute("CREATE TABLE public.moment_seen ()")
    assert [m["text"] for m in await world.got(number, ANNA, 3)] == ["hello", "one moment", "done"]
    ledger = await world.quiet(project)
    assert (balanced(ledger), ledger["handled"]) == (True, 2)


async def test_a_person_sends_a_message_through_the_inbox_once_however_often_it_is_asked(world: World) -> None:
    project = await world.project("orders", bot("echo"))
    number = await world.number(project)
    assert await world.deliver(webhooks.body(number, messages=[webhooks.text(ANNA, f"wamid.{number}.1", "hi")])) == 200
    await world.got(number, ANNA, 2)
    contact = (await world.good("GET", f"/v1/projects/{project}/contacts"))["items"][0]["id"]
    order = {"contact_id": contact, "number_id": number, "message": {"type": "text", "text": "a word from the desk"}}
    answers = [await world.rest("POST", f"/v1/projects/{project}/messages", order, headers={"Idempotency-Key": "once"}) for _ in range(3)]
    assert {a.status for a in answers} == {202}
    assert len({a.body["message_id"] for a in answers}) == 1
    said = [m["text"] for m in await world.got(number, ANNA, 3)]
    assert said == ["one: hi", "two: hi", "a word from the desk"]
    conversation = (await world.good("GET", f"/v1/projects/{project}/conversations"))["items"][0]["id"]
    listed = (await world.good("GET", f"/v1/conversations/{conversation}/messages"))["items"]
    assert {m["text"] for m in listed} == {"hi", *said}


@pytest.mark.promise("P1")
async def test_what_is_not_metas_is_refused_and_leaves_no_trace(world: World) -> None:
    project = await world.project("strangers", bot("echo"))
    number = await world.number(project)
    raw = webhooks.body(number, messages=[webhooks.text(ANNA, f"wamid.{number}.1", "hi")])
    assert await world.deliver(raw, signed="sha256=" + "0" * 64) == 401
    assert await world.deliver(raw, signed="") == 401
    assert await world.deliver(b"{") == 400
    assert await world.deliver(b'{"object": "page", "entry": []}') in {400, 404, 422}
    assert await world.deliver(b" " * (3 * 1024 * 1024 + 200_000)) == 413
    assert (await world.quiet(project))["accepted"] == 0


@pytest.mark.promise("P4")
async def test_who_may_not_see_a_project_is_told_that_there_is_none(world: World) -> None:
    for path in ("", "/contacts", "/ledger", "/dead-letters", "/numbers"):
        answer = await world.rest("GET", f"/v1/projects/prj_0000000000000000{path}")
        assert (answer.status, answer.body["code"]) == (404, "not_found"), path
    answer = await world.rest("GET", "/v1/projects", key="lq_not-a-key")
    assert answer.status == 401


async def test_a_bot_with_a_syntax_error_is_refused_with_file_and_line_and_the_old_one_goes_on(world: World) -> None:
    project = await world.project("typo", bot("echo"))
    number = await world.number(project)
    broken: dict[str, Any] = {"files": {"bot.py": "from loquat import Bot\nbot = Bot(\n"}, "message": "oops"}
    answer = await world.rest("POST", f"/v1/projects/{project}/bot/deployments", broken)
    assert answer.status == 422
    assert "bot.py" in str(answer.body)
    assert answer.body["line"] == 2
    assert await world.deliver(webhooks.body(number, messages=[webhooks.text(ANNA, f"wamid.{number}.1", "still there")])) == 200
    assert [m["text"] for m in await world.got(number, ANNA, 2)] == ["one: still there", "two: still there"]


async def test_a_file_that_a_contact_sends_is_read_by_the_bot_and_another_is_given_back(world: World) -> None:
    project = await world.project("files", bot("files"))
    number = await world.number(project)
    order = {"phone_number_id": number, "from": ANNA, "type": "document", "content": {"filename": "a.txt", "mime_type": "text/plain"}}
    await world.simulate("POST", "/api/messages", {**order, "file": base64.b64encode(b"hello").decode()})
    (shown,) = await world.got(number, ANNA, 1)
    assert (shown["type"], shown["text"], shown["raw"]["filename"]) == ("document", "5 bytes of text/plain", "loud.txt")
    headers = {"Authorization": f"Bearer {world.tokens[-1]}"}
    async with world.session.get(f"{world.simulator}/media/{shown['raw']['id']}", headers=headers) as response:
        assert await response.read() == b"HELLO"
