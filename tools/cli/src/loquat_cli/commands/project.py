"""`loquat project`."""

from __future__ import annotations

import sys
from typing import Annotated, Final
from urllib.parse import quote

from cyclopts import Parameter

from loquat_cli import demo
from loquat_cli.context import Context
from loquat_cli.errors import Trouble
from loquat_cli.show import console, plain, program, table, when

_LONGEST: Final = 30  # days that a deleted project's database can be kept
_DAY: Final = 86_400


class NotThat(Trouble):
    """It was not confirmed, or an option is none."""


async def create_project(name: str, /) -> None:
    """Create a project with its database and the starter bot, and wait until it is ready.

    Parameters
    ----------
    name
        What it shall be called.
    """
    async with Context.load().rest() as rest:
        if any(p["name"] == name.strip() and p["status"] != "deleted" for p in await rest.all("/v1/projects")):
            said = f"[yellow]there is a project {plain(name.strip())} already[/]: this is another one, and both are named by their ids"
            console(stderr=True).print(said)
        project = (await rest.post("/v1/projects", {"name": name}))["id"]
        await demo.ready(rest, project)
    console().print(f"{plain(project)} is ready")


async def list_project() -> None:
    """List the projects."""
    async with Context.load().rest() as rest:
        items = await rest.all("/v1/projects")
    rows = [(p["id"], p["name"], p["status"], when(p["created_at"]), _trouble(p)) for p in items]
    console().print(table(("ID", "NAME", "STATUS", "CREATED", ""), rows))


async def show_project(project: str | None = None, /) -> None:
    """Show a project, and how far its creation is.

    Parameters
    ----------
    project
        Its id or name; the demo project unless given.
    """
    context = Context.load()
    async with context.rest() as rest:
        found = await rest.get(_at(await context.project(rest, project)))
    out = console()
    out.print(f"{plain(found['id'])} {plain(found['name'])}: {plain(found['status'])} {plain(_trouble(found))}".rstrip())
    out.print(f"ordered {when(found['created_at'])}" + (f", ready {when(found['ready_at'])}" if found["ready_at"] else ""))
    steps = [(s["name"], s["status"], s["attempts"], when(s["started_at"]), s["reason"] or "") for s in found["steps"]]
    if steps:
        out.print(table(("STEP", "STATUS", "TRIES", "BEGUN", ""), steps))


async def retry_project(project: str, /) -> None:
    """Go on with a creation that failed, where it failed.

    Parameters
    ----------
    project
        Its id or name.
    """
    context = Context.load()
    async with context.rest() as rest:
        chosen = await context.project(rest, project)
        await rest.post(f"{_at(chosen)}/retry")
    console().print(f"{plain(chosen)} is tried again; `{plain(program())} project show {plain(chosen)}` says how far it is")


async def delete_project(project: str, /, *, keep_days: int = 0, yes: Annotated[bool, Parameter(alias="-y", negative=())] = False) -> None:
    """Delete a project with its bot, its numbers and its database. It cannot be brought back.

    Parameters
    ----------
    project
        Its id or name.
    keep_days
        Days for which its database is kept before it goes, at most 30.
    yes
        Do not ask.
    """
    if not 0 <= keep_days <= _LONGEST:
        raise NotThat(f"--keep-days takes 0 to {_LONGEST} days, not {keep_days}")
    context = Context.load()
    async with context.rest() as rest:
        chosen = await context.project(rest, project)
        if not yes:
            _ask(chosen, (await rest.get(_at(chosen)))["name"])
        await rest.delete(_at(chosen), {"grace_seconds": keep_days * _DAY})
    console().print(f"{plain(chosen)} is being deleted")


def _ask(project: str, name: str) -> None:
    if not sys.stdin.isatty():
        raise NotThat(f"nobody can be asked whether {project} shall be deleted: say it with --yes")
    console().print(f"{plain(project)} ({plain(name)}) goes with its bot, its numbers and its database.")
    if input("Type its id to delete it: ").strip() != project:
        raise NotThat("that is not its id; nothing was deleted")


def _at(project: str) -> str:
    return f"/v1/projects/{quote(project, safe='')}"


def _trouble(project: dict[str, object]) -> str:
    return f"failed at {project['failing_step']}: {project['reason']}" if project["status"] == "failed" else ""
