"""`loquat dead`."""

from __future__ import annotations

import json
from typing import Annotated, Any

from cyclopts import Parameter

from loquat_cli.context import Context
from loquat_cli.rest import MOST
from loquat_cli.show import console, plain, table, when

Project = Annotated[str | None, Parameter(alias="-p")]


async def list_dead(*, project: Project = None, limit: Annotated[int, Parameter(alias="-n")] = 50) -> None:
    """List a project's dead letters, the newest first.

    Parameters
    ----------
    project
        Id or name of the project; the demo project unless named.
    limit
        How many.
    """
    context = Context.load()
    async with context.rest() as rest:
        path, items, away = f"/v1/projects/{await context.project(rest, project)}/dead-letters", list[Any](), set[str]()
        async for page in rest.pages(path, {"limit": min(limit, MOST)}):
            items += page["items"]
            away.update(page["unavailable"])
            if len(items) >= limit:
                break
    rows = [(d["id"], d["type"], d["state"], d["attempts"], when(d["created_at"]), d["reason"]) for d in items[:limit]]
    console().print(table(("ID", "TYPE", "STATE", "TRIES", "SINCE", "REASON"), rows))
    for consumer in sorted(away):
        console(stderr=True).print(f"[yellow]{plain(consumer)} does not answer: its dead letters are missing here[/]")


async def show_dead(letter: str, /, *, project: Project = None) -> None:
    """Show a dead letter with its event.

    Parameters
    ----------
    letter
        Its id, as `loquat dead list` shows it.
    project
        Id or name of the project; the demo project unless named.
    """
    context = Context.load()
    async with context.rest() as rest:
        found = await rest.get(f"/v1/projects/{await context.project(rest, project)}/dead-letters/{letter}")
    console().print(plain(json.dumps(found, indent=2, ensure_ascii=False)))


async def redrive_dead(letter: str, /, *, project: Project = None) -> None:
    """Give a dead letter to its consumer again, out of order: later messages of its conversation may have been handled.

    Parameters
    ----------
    letter
        Its id, as `loquat dead list` shows it.
    project
        Id or name of the project; the demo project unless named.
    """
    context = Context.load()
    async with context.rest() as rest:
        await rest.post(f"/v1/projects/{await context.project(rest, project)}/dead-letters/{letter}/redrive")
    console().print(f"{plain(letter)} is tried again")


async def discard_dead(letter: str, /, *, reason: str, project: Project = None) -> None:
    """Give a dead letter up for good. The event stays in the record, with the reason.

    Parameters
    ----------
    letter
        Its id, as `loquat dead list` shows it.
    reason
        Why.
    project
        Id or name of the project; the demo project unless named.
    """
    context = Context.load()
    async with context.rest() as rest:
        await rest.post(f"/v1/projects/{await context.project(rest, project)}/dead-letters/{letter}/discard", {"reason": reason})
    console().print(f"{plain(letter)} is given up")
