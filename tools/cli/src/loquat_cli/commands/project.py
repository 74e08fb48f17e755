"""`loquat project`."""

from __future__ import annotations

from loquat_cli import demo
from loquat_cli.context import Context
from loquat_cli.show import console, plain, table, when


async def create_project(name: str, /) -> None:
    """Create a project with its database and the starter bot, and wait until it is ready.

    Parameters
    ----------
    name
        What it shall be called.
    """
    async with Context.load().rest() as rest:
        project = (await rest.post("/v1/projects", {"name": name}))["id"]
        await demo.ready(rest, project)
    console().print(f"{plain(project)} is ready")


async def list_project() -> None:
    """List the projects."""
    async with Context.load().rest() as rest:
        items = await rest.all("/v1/projects")
    rows = [(p["id"], p["name"], p["status"], when(p["created_at"]), _trouble(p)) for p in items]
    console().print(table(("ID", "NAME", "STATUS", "CREATED", ""), rows))


def _trouble(project: dict[str, object]) -> str:
    return f"failed at {project['failing_step']}: {project['reason']}" if project["status"] == "failed" else ""
