"""`loquat bot schedules`."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from loquat_cli.botapi import BotApi, Project, place
from loquat_cli.show import console, plain, table, when


async def list_schedules(*, project: Project = None) -> None:
    """List the schedules of the deployed bot, and when each is due next.

    Parameters
    ----------
    project
        Id or name of the project; the demo project unless named.
    """
    async with BotApi.of(project) as api:
        items = (await api.get("/schedules"))["items"]
    rows = [(s["name"], s["schedule"], s["tz"], "on" if s["active"] else "off", when(s["next_due"]), s["catch_up"]) for s in items]
    console().print(table(("NAME", "WHEN", "ZONE", "", "NEXT", "MISSED"), rows))


async def on_schedules(name: str, /, *, project: Project = None) -> None:
    """Turn a schedule on. That stays whatever is deployed.

    Parameters
    ----------
    name
        As `loquat bot schedules list` shows it.
    project
        Id or name of the project; the demo project unless named.
    """
    made = await _turned(name, project, active=True)
    due = f"; next: {when(made['next_due'])}" if made["next_due"] else ""
    console().print(f"{plain(name)} is on{due}")


async def off_schedules(name: str, /, *, project: Project = None) -> None:
    """Turn a schedule off. That stays whatever is deployed.

    Parameters
    ----------
    name
        As `loquat bot schedules list` shows it.
    project
        Id or name of the project; the demo project unless named.
    """
    await _turned(name, project, active=False)
    console().print(f"{plain(name)} is off")


async def run_schedules(name: str, /, *, project: Project = None) -> None:
    """Run a schedule now, also one that is off.

    Parameters
    ----------
    name
        As `loquat bot schedules list` shows it.
    project
        Id or name of the project; the demo project unless named.
    """
    async with BotApi.of(project) as api:
        fired = await api.post(f"/schedules/{place(name, 'a schedule')}/runs", None)
    console().print(f"{plain(name)} runs as event {plain(fired['event_id'])}")
    logs = api.command(f"logs --event {fired['event_id']}")
    console().print(f"[dim]what it says: {plain(logs)}[/]")


async def history_schedules(name: str, /, *, project: Project = None, limit: Annotated[int, Parameter(alias="-n")] = 20) -> None:
    """Show the last runs of a schedule, the newest last.

    Parameters
    ----------
    name
        As `loquat bot schedules list` shows it.
    project
        Id or name of the project; the demo project unless named.
    limit
        How many.
    """
    async with BotApi.of(project) as api:
        items = (await api.get(f"/schedules/{place(name, 'a schedule')}/runs", {"limit": limit}))["items"][::-1]
    rows = [(when(r["due_at"]), r["outcome"] or "open", when(r["finished_at"]), r["event_id"], r["ordered_by"] or "") for r in items]
    console().print(table(("DUE", "OUTCOME", "ENDED", "EVENT", "BY HAND"), rows))


async def _turned(name: str, project: str | None, *, active: bool) -> Any:
    async with BotApi.of(project) as api:
        return await api.patch(f"/schedules/{place(name, 'a schedule')}", {"active": active})
