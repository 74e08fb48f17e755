"""`loquat bot versions` and `diff`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from loquat_cli.botapi import SHORT, BotApi, Project
from loquat_cli.show import console, plain, table, when

_SHOWN = {"all": "everybody", "canary": "canary", None: ""}


async def versions_bot(*, project: Project = None, limit: Annotated[int, Parameter(alias="-n")] = 20) -> None:
    """List what was saved, the newest first, and what of it is deployed.

    Parameters
    ----------
    project
        Id or name of the project; the demo project unless named.
    limit
        How many.
    """
    async with BotApi.of(project) as api:
        page, status = await api.get("/versions", {"limit": limit}), await api.get("")
    out = console()
    out.print(
        table(
            ("VERSION", "SAVED", "BY", "DEPLOYED", "MESSAGE"),
            [(v["version"][:SHORT], when(v["created_at"]), v["author"], _SHOWN[v["deployed"]], v["message"]) for v in page["items"]],
        )
    )
    if page["next_cursor"] is not None:
        out.print(f"[dim]and older ones: -n {limit * 2}[/]")
    if status["saved_not_deployed"]:
        out.print(f"[yellow]version {plain(status['newest_version'][:SHORT])} is saved, not deployed[/]")
    if status.get("paused"):
        out.print(f"[yellow]the bot is paused and answers nobody[/] until {plain(api.command('resume'))}")
    if (compared := status["comparison"]) is not None:
        for name in ("canary", "stable"):
            tally = compared[name]
            out.print(f"{name}: {tally['failed']} of {tally['events']} events failed")


async def diff_bot(version: str, against: str | None = None, /, *, project: Project = None) -> None:
    """Show what differs between two versions.

    Parameters
    ----------
    version
        The newer one, by its first 6 characters or more.
    against
        The older one, likewise; what the newer one began with, unless given.
    project
        Id or name of the project; the demo project unless named.
    """
    async with BotApi.of(project) as api:
        chosen = await api.version(version)
        query: dict[str, str | int] = {"against": await api.version(against)} if against is not None else {}
        found = await api.get(f"/versions/{chosen}/diff", query)
    out = console()
    for file in found["items"]:
        if file["diff"] is None:
            out.print(f"{plain(file['path'])}: {file['status']}, too long to be compared")
        else:
            out.print(plain(file["diff"].rstrip()))
    if not found["items"]:
        out.print("nothing differs")
