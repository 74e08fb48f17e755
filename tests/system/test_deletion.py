"""A deleted project leaves nothing: no database, no bot, no number, no token, no message in a queue; its number is free."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system import webhooks
from tests.system.conftest import Running
from tests.system.world import World, until

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

ECHO = (Path(__file__).parent / "bots" / "echo.py").read_text()
KEPT = {
    "bot_runner": ("versions", "deployments", "runs", "logs"),
    "connector": ("numbers", "sends"),
    "provisioner": ("credentials",),
    "schema_manager": ("databases",),
}
"""Tables with rows of a project, by schema."""


@pytest.mark.promise("P4")
async def test_a_deleted_project_leaves_nothing_and_its_number_can_be_connected_elsewhere(running: Running, world: World) -> None:
    project, heir = await world.project("short", {"bot.py": ECHO}), await world.project("heir", {"bot.py": ECHO})
    number = await world.number(project)
    assert await world.deliver(webhooks.body(number, messages=[webhooks.text("4915112349001", f"wamid.{number}.1", "hello")])) == 200
    await world.got(number, "4915112349001", 2)
    await world.quiet(project)
    control = await running.stack.clusters[0].connect("loquat")
    world.opened.append(control)
    assert await _rows(control, project)

    running.arm("provisioner.drop.after")  # killed with the database gone and nobody told
    await world.good("DELETE", f"/v1/projects/{project}")

    async def gone() -> bool:
        return (await world.rest("GET", f"/v1/projects/{project}")).status == 404

    await until(gone, "the project is gone", 60)
    assert running.fired("provisioner.drop.after")

    kept = list[str]()

    async def forgotten() -> bool:
        kept[:] = await _rows(control, project)
        return not kept

    try:
        await until(forgotten, "nobody keeps anything of it", 60)
    except AssertionError:
        raise AssertionError(f"after a minute there still are rows in {', '.join(kept)}") from None
    assert project not in {p["id"] for p in (await world.good("GET", "/v1/projects"))["items"]}

    token = world.tokens[-1]
    await world.good("POST", f"/v1/projects/{heir}/numbers", {"phone_number_id": number, "waba_id": webhooks.WABA, "token": token})

    async def routed() -> bool:
        numbers = (await world.good("GET", f"/v1/projects/{heir}/numbers"))["items"]
        return any(n["phone_number_id"] == number and n["state"] == "attached" for n in numbers)

    await until(routed, "the number is the heir's")
    assert await world.deliver(webhooks.body(number, messages=[webhooks.text("4915112349002", f"wamid.{number}.2", "again")])) == 200
    assert [m["text"] for m in await world.got(number, "4915112349002", 2)] == ["one: again", "two: again"]


async def _rows(control: Connection, project: str) -> list[str]:
    found = list[str]()
    for schema, tables in KEPT.items():
        for table in tables:
            query = f"SELECT count(*) FROM {schema}.{table} WHERE project_id = $1"  # noqa: S608  (constants)
            if await control.fetchval(query, project):
                found.append(f"{schema}.{table}")
    return found
