"""What the owner sets without a deployment reaches a warm bot with the next event: configuration, secrets; and what a bot notes of its contact."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus
from uuid import uuid4

import pytest
from loquat.protocol import shortened
from loquat_bot_runner.adapters.secrets import Secrets
from loquat_bot_runner.domain.configuration import Setting, flaws
from loquat_bot_runner.domain.printed import LONGEST_LINE, Printed
from loquat_bot_runner.domain.redaction import SHORTEST, Redactor
from loquat_bot_runner.errors import ProjectDatabaseAway
from loquat_common.crypto import KeyRing
from loquat_sandbox import Sandbox

from conftest import Platform
from tests.botbench import Bench, migrated, open_bench
from tests.system.world import until
from tests.tenants import Tenants

HEAD = "import json\nfrom datetime import timedelta\nfrom loquat import Bot\nbot = Bot()\n"
TELL = """
@bot.fallback
async def tell(ctx):
    count = await ctx.memory.increment("calls")
    ctx.reply_text(json.dumps({"config": dict(ctx.config), "secrets": {k: len(v) for k, v in ctx.secrets.items()}, "count": count}))
"""
DECLARED = 'bot.config("greeting", default="Hello", help="how people are greeted")\nbot.config("limit", type=int)\n'


@pytest.fixture
async def bench(platform: Platform, bundles: Path, tenants: Tenants, sandbox: Sandbox) -> AsyncGenerator[Bench]:
    async with open_bench(platform, bundles, tenants, sandbox) as made:
        yield made


def bot(body: str) -> dict[str, str]:
    return {"bot.py": HEAD + body}


async def told(bench: Bench, text: str = "hi") -> dict[str, Any]:
    (answer,) = await bench.say(text=text)
    return json.loads(answer)


async def test_configuration_reaches_a_warm_bot_with_the_next_event(bench: Bench) -> None:
    await bench.deploy(files=bot(TELL))
    assert await told(bench) == {"config": {}, "secrets": {}, "count": 1}
    await bench.good("PUT", "/configuration/greeting", {"value": {"text": "Hi"}})
    await bench.good("PUT", "/configuration/none", {"value": None})
    assert await told(bench) == {"config": {"greeting": {"text": "Hi"}, "none": None}, "secrets": {}, "count": 2}
    await bench.good("DELETE", "/configuration/none")
    listed = await bench.good("GET", "/configuration")
    assert ([(i["key"], i["value"]) for i in listed["items"]], listed["declared"]) == ([("greeting", {"text": "Hi"})], [])
    await bench.bad("DELETE", "/configuration/none", code="not_found")
    await bench.bad("PUT", "/configuration/a b", {"value": 1}, code="invalid_request")
    refused = await bench.bad("PUT", "/configuration/long", {"value": "x" * 16_384}, code="over_limit")
    assert "16 KiB" in refused["detail"]


async def test_keys_that_the_bot_does_not_declare_are_refused_when_they_are_set_and_when_it_is_deployed(bench: Bench) -> None:
    await bench.deploy(files=bot(TELL))
    await bench.good("PUT", "/configuration/greetnig", {"value": "Hi"})
    refused = await bench.bad("POST", "/deployments", {"files": bot(DECLARED + TELL)}, code="deployment_refused")
    (reason,) = refused["reasons"]
    assert (reason["code"], "'greetnig'" in reason["detail"]) == ("configuration_refused", True)
    assert "DELETE .../bot/configuration/greetnig" in reason["advice"]
    await bench.good("DELETE", "/configuration/greetnig")
    await bench.deploy(files=bot(DECLARED + TELL))
    refused = await bench.bad("PUT", "/configuration/greetnig", {"value": "Hi"}, code="configuration_refused")
    assert refused["advice"].startswith("it declares: greeting, limit.")
    refused = await bench.bad("PUT", "/configuration/limit", {"value": "3"}, code="configuration_refused")
    assert refused["detail"] == "the value of 'limit' is no int"
    await bench.good("PUT", "/configuration/limit", {"value": 3})
    assert (await told(bench))["config"] == {"limit": 3, "greeting": "Hello"}
    declared = (await bench.good("GET", "/configuration"))["declared"]
    assert declared[0] == {"key": "greeting", "type": "str", "nullable": False, "help": "how people are greeted", "default": '"Hello"'}


SPILL = """
@bot.text("spill")
async def spill(ctx):
    ctx.log.info(f"info {ctx.secrets['api']}")
    print("printed", ctx.secrets["key"])
    raise RuntimeError(ctx.secrets["api"])
"""


@pytest.mark.promise("P8")
async def test_secrets_reach_a_warm_bot_and_nothing_that_is_kept_or_shown_holds_their_values(bench: Bench) -> None:
    await bench.deploy(files=bot(TELL + SPILL))
    assert (await told(bench))["secrets"] == {}
    first = await bench.good("PUT", "/secrets/api", {"value": "s3cr3t-of-anna"})
    assert sorted(first) == ["created_at", "name", "updated_at"]
    assert (await told(bench))["secrets"] == {"api": 14}
    await bench.good("PUT", "/secrets/api", {"value": "s3cr3t-turned"})
    await bench.good("PUT", "/secrets/key", {"value": "-----BEGIN-----\nbGluZSBvbmU\n-----END-----"})
    assert (await told(bench))["secrets"] == {"api": 13, "key": 41}
    await bench.take(bench.message(text="spill"))
    (run,) = await bench.runs(outcome="failed")
    assert run["error"] == "RuntimeError: [secret api]"

    async def logged() -> bool:
        lines = [r["line"] for r in (await bench.good("GET", "/logs"))["items"]]
        return {"info [secret api]", "printed [secret key]"} <= set(lines)

    await until(logged, "the bot's lines are written")
    kept = await bench.pool.fetchval(
        "SELECT (SELECT string_agg(l::text, '|') FROM logs AS l) || (SELECT string_agg(r::text, '|') FROM runs AS r)"
        " || (SELECT string_agg(s::text || encode(s.sealed, 'escape'), '|') FROM secrets AS s)"
    )
    shown = str(await bench.good("GET", "/secrets"))
    for part in ("s3cr3t", "bGluZSBvbmU"):
        assert part not in kept
        assert part not in shown
    await bench.good("DELETE", "/secrets/api")
    assert (await told(bench))["secrets"] == {"key": 41}
    await bench.bad("DELETE", "/secrets/api", code="not_found")


async def test_limits_of_secrets_are_named_and_a_project_that_goes_takes_them_along(bench: Bench) -> None:
    for name, value, code in (("a b", "x", "invalid_request"), ("a", "", "invalid_request"), ("a", "ü" * 5000, "over_limit")):
        await bench.bad("PUT", f"/secrets/{name}", {"value": value}, code=code)
    for n in range(16):
        await bench.good("PUT", f"/secrets/long{n}", {"value": "x" * 8192})
    assert "131072 bytes together" in (await bench.bad("PUT", "/secrets/last", {"value": "x" * 8192}, code="over_limit"))["detail"]
    assert len((await bench.good("GET", "/secrets"))["items"]) == 16
    assert bench.project_id in await bench.store.projects()
    await bench.store.forget(bench.project_id)
    assert await bench.pool.fetchval("SELECT count(*) FROM secrets") == 0


NOTE = """
@bot.text("note")
async def note(ctx):
    await ctx.contact.memory.set("last", ctx.event.text)
    await ctx.contact.set(name="Ada L.", language="de", attributes={"vip": True})
    ctx.reply_text("noted")


@bot.text("plain")  # without the database: its result goes through the runner's hands
async def plain(ctx):
    await ctx.contact.set(attributes={"plain": 1})
    ctx.reply_text("noted")


@bot.fallback
async def show(ctx):
    c = ctx.contact
    ctx.reply_text(f"{c.name} {c.language} {c.phone_number} {dict(c.attributes)} {await c.memory.get('last')}")
"""


@pytest.mark.promise("P2")
async def test_what_a_bot_notes_of_its_contact_is_there_at_the_next_event_and_of_nobody_else(bench: Bench) -> None:
    await bench.deploy(files=bot(NOTE))
    assert await bench.say(text="hi") == ["None None None {} None"]
    assert await bench.say(text="note") == ["noted"]
    assert await bench.say(text="plain") == ["noted"]
    assert await bench.say(text="hi") == ["Ada L. de None {'vip': True, 'plain': 1} note"]
    assert await bench.say("48", "hi") == ["None None None {} None"]


def test_a_redactor_knows_every_value_of_six_characters_the_longest_first_and_lines_of_long_ones() -> None:
    redact = Redactor({"a": "secret", "b": "secret-and-more", "short": "12345"}, {"a": "before"})
    assert redact("secret-and-more, secret, before, 12345") == "[secret b], [secret a], [secret a], 12345"
    assert Redactor({"k": "first line\nsecond line\n"})("... second line ...") == "... [secret k] ..."
    assert Redactor({})("as it is") == "as it is"


@pytest.mark.promise("P8")
@pytest.mark.parametrize("others", [0, 300])
def test_a_redactor_knows_values_as_programs_write_them(others: int) -> None:
    value = 'pä ss/w"rd+2\t'
    redact = Redactor({"k": value, **{f"other {n}": f"of no matter {n}" for n in range(others)}})
    basic = [b64encode(f"{user}:{value}".encode()).decode() for user in ("a", "bo", "eva")]
    for written in (
        value,
        quote(value, safe=""),
        quote_plus(value),
        json.dumps({"key": value}),
        repr({"key": value}),
        *basic,
        *map(_for_urls, basic),
    ):
        assert "[secret k]" in redact(f"it says {written}."), written
        assert not any(part in redact(written) for part in ('w"rd', "%2Fw", "cmQr", "kIisy")), written
    assert redact("nothing of it") == "nothing of it"


def _for_urls(text: str) -> str:
    return text.translate(str.maketrans("+/", "-_"))


@pytest.mark.promise("P8")
@pytest.mark.parametrize("left", range(1, 14))
def test_the_head_of_a_value_that_a_cut_has_left_goes_too(left: int) -> None:
    words = shortened(f"no {'s3cr3t-of-anna'} more", 3 + left + 1)
    redacted = Redactor({"api": "s3cr3t-of-anna"})(words)
    assert redacted == ("no [secret api]\N{HORIZONTAL ELLIPSIS}" if left >= SHORTEST else words)


def test_what_is_printed_comes_in_whole_lines_however_it_is_read() -> None:
    printed = Printed()
    assert [printed.add(part) for part in (b"on", "e\nzwölf".encode()[:-3], "zwölf".encode()[-3:], b"\n")] == ["", "one\n", "", "zwölf\n"]
    assert (printed.waits, printed.rest()) == (False, "")
    assert len(printed.add(b"x" * LONGEST_LINE)) == LONGEST_LINE


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("str", "x", 1),
        ("int", 1, True),
        ("int", 1, 1.5),
        ("float", 1, "1"),
        ("bool", False, 0),
        ("list", [], {}),
        ("dict", {}, []),
        ("str", "x", None),
    ],
)
def test_a_value_fits_its_declared_type_or_is_a_flaw(kind: str, good: object, bad: object) -> None:
    declared = {"k": Setting("k", kind)}
    assert flaws(declared, {"k": good}) == []
    assert [f.key for f in flaws(declared, {"k": bad})] == ["k"]
    assert flaws({"k": Setting("k", kind, nullable=True)}, {"k": None}) == []
    assert flaws({}, {"k": bad, "whatever": 1}) == []


TRIES = """
import os

@bot.fallback
async def fallible(ctx):
    await ctx.pool.execute("CREATE TABLE IF NOT EXISTS tries (event uuid)")
    await ctx.pool.execute("INSERT INTO tries VALUES ($1)", ctx.event.id)
    count = await ctx.memory.increment("handled")
    if await ctx.pool.fetchval("SELECT count(*) FROM tries") < 3:
        os._exit(1)
    ctx.reply_text(f"{count} of 3")
"""


@pytest.mark.promise("P2")
async def test_what_a_process_that_ends_in_its_handler_has_remembered_is_not_there_and_what_it_did_outside_is(bench: Bench) -> None:
    await bench.deploy(files=bot(TRIES))
    event = bench.message()
    for attempt in range(3):
        await bench.take(event, attempt)
    assert bench.answers(event.id) == ["1 of 3"]


ASKS = """
from loquat import HttpFailed

@bot.fallback
async def ask(ctx):
    try:
        await ctx.http.get("https://127.0.0.1:1/")
    except HttpFailed as error:
        ctx.reply_text(f"{error}")
"""


async def test_a_bot_asks_the_outside_through_its_own_door_only(bench: Bench) -> None:
    await bench.deploy(files=bot(ASKS))
    (answer,) = await bench.say()
    assert answer.startswith("127.0.0.1 could not be asked: the proxy answered 403 ")


async def test_secrets_are_open_at_a_mark_and_a_change_that_was_cut_off_before_it_waits_for_the_next(platform: Platform) -> None:
    pool = await migrated(platform)
    ring, first, second = KeyRing.from_json(KeyRing.new()), uuid4(), uuid4()
    secrets = Secrets(pool, ring)
    assert await secrets.of("prj", 1, None) == {}
    await secrets.set("prj", "api", "value one")
    assert await secrets.of("prj", 1, first) == {"api": "value one"}
    await secrets.set("prj", "api", "value two")
    assert await secrets.of("prj", 1, first) == {"api": "value one"}
    assert await secrets.of("prj", 1, second) == {"api": "value two"}
    assert secrets.redacted("prj", "value one, value two") == "[secret api], [secret api]"
    assert await secrets.of("another", 1, first) == {}
    assert secrets.redacted("another", "value one") == "value one"
    with pytest.raises(ProjectDatabaseAway):
        await Secrets(pool, KeyRing.from_json(KeyRing.new())).of("prj", 1, first)
    await pool.execute("UPDATE secrets SET project_id = 'thief'")
    with pytest.raises(ProjectDatabaseAway):
        await secrets.of("thief", 1, first)


async def test_a_restored_database_has_an_older_mark_and_the_secrets_of_today(platform: Platform) -> None:
    secrets, mark = Secrets(await migrated(platform), KeyRing.from_json(KeyRing.new())), uuid4()
    await secrets.set("prj", "api", "at the backup")
    assert await secrets.of("prj", 1, mark) == {"api": "at the backup"}
    await secrets.set("prj", "api", "rotated since")
    assert await secrets.of("prj", 2, mark) == {"api": "rotated since"}
