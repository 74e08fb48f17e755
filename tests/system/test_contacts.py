"""A person is merged and erased while the processes that do it are killed: the record, the project's own table and the ledger are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.system import webhooks
from tests.system.conftest import Running
from tests.system.world import World, balanced, until

ECHO = (Path(__file__).parent / "bots" / "echo.py").read_text()
ANNA, OTHER = "4915112347001", "4915112347002"


@pytest.mark.parametrize("running", ["postgres"], indirect=True)  # the engines' own tests know what a kill does to each
@pytest.mark.promise("P2")
@pytest.mark.promise("P7")
async def test_a_merge_and_an_erase_are_done_once_over_kills_and_a_custom_table_follows(running: Running, world: World) -> None:
    project = await world.project("people", {"bot.py": ECHO})
    number, base = await world.number(project), f"/v1/projects/{project}"
    for n, phone in enumerate((ANNA, OTHER)):
        assert await world.deliver(webhooks.body(number, messages=[webhooks.text(phone, f"wamid.{number}.{n}", "it is Annabel")])) == 200
        await world.got(number, phone, 2)
    await world.quiet(project)
    contacts = {c["phone_number"].lstrip("+"): c["id"] for c in (await world.good("GET", f"{base}/contacts"))["items"]}
    anna, other = contacts[ANNA], contacts[OTHER]
    columns = [{"name": "who", "type": "uuid", "link": "contact"}]
    await world.good("POST", f"{base}/database/changes", {"changes": [{"change": "create_table", "name": "visits", "columns": columns}]})
    await world.good("POST", f"{base}/database/tables/visits/rows", {"rows": [{"who": anna}, {"who": other}]})

    running.arm("conversation_log.contacts.executed")
    running.arm("schema_manager.following.step")
    merged = await _finished(world, base, await world.good("POST", f"{base}/contacts/{other}/merge", {"into": anna}))
    assert running.fired("conversation_log.contacts.executed")
    assert running.fired("schema_manager.following.step")
    assert [(t["table"], t["column"]) for t in merged["tables"]] == [("visits", "who")]
    database = await world.database(project)
    assert [str(r["who"]) for r in await database.fetch("SELECT who FROM visits")] == [anna, anna]
    assert (await world.good("GET", f"{base}/contacts/{other}"))["merged_into"] == anna

    erased = await _finished(world, base, await world.good("DELETE", f"{base}/contacts/{anna}"))
    assert (erased["rows"], [r["who"] for r in await database.fetch("SELECT who FROM visits")]) == (2, [None, None])
    assert await database.fetchval("SELECT count(*) FROM public.messages WHERE num_nonnulls(text, content, raw) > 0") == 0
    assert {(await world.rest("GET", f"{base}/contacts/{c}")).status for c in (anna, other)} == {410}
    assert balanced(await world.quiet(project))

    assert await world.deliver(webhooks.body(number, messages=[webhooks.text(ANNA, f"wamid.{number}.9", "again")])) == 200
    assert [m["text"] for m in (await world.got(number, ANNA, 4))[-2:]] == ["one: again", "two: again"]
    assert anna not in {c["id"] for c in (await world.good("GET", f"{base}/contacts"))["items"]}


async def _finished(world: World, base: str, order: dict[str, Any]) -> dict[str, Any]:
    async def done() -> dict[str, Any] | None:
        answer = await world.rest("GET", f"{base}/contact-orders/{order['id']}")
        return answer.body if answer.status == 200 and answer.body["state"] == "done" else None

    return await until(done, f"the {order['kind']} is done", 60)
