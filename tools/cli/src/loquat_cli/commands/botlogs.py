"""`loquat bot logs` and `runs`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

from cyclopts import Parameter

from loquat_cli.botapi import SHORT, BotApi, Project
from loquat_cli.show import console, plain, table, when

_EVERY: Final = 1.0  # seconds between two looks for new lines
_PAGE: Final = 200


async def logs_bot(
    *,
    project: Project = None,
    limit: Annotated[int, Parameter(alias="-n")] = 50,
    follow: Annotated[bool, Parameter(alias="-f")] = False,
    event: str | None = None,
) -> None:
    """Show what a bot logged, the newest last.

    Parameters
    ----------
    project
        Id or name of the project; the demo project unless named.
    limit
        How many lines.
    follow
        Go on showing lines as they come, until Ctrl-C.
    event
        Only the lines of this event; see `loquat bot runs`.
    """
    only: dict[str, str | int] = {"event": event} if event is not None else {}
    async with BotApi.of(project) as api:
        lines = (await api.get("/logs", {"limit": limit, **only}))["items"][::-1]
        show_lines(lines)
        if follow:
            await _follow(api, lines[-1]["id"] if lines else 0, only)


async def runs_bot(
    *,
    project: Project = None,
    limit: Annotated[int, Parameter(alias="-n")] = 20,
    failed: bool = False,
    version: str | None = None,
    conversation: str | None = None,
    since: str | None = None,
) -> None:
    """Show what a bot did, the newest last.

    Parameters
    ----------
    project
        Id or name of the project; the demo project unless named.
    limit
        How many runs.
    failed
        Only those that failed, with the bot's own frames.
    version
        Only of this version, by its first characters.
    conversation
        Only of this conversation.
    since
        Only since then, such as 2026-01-31T12:00:00Z.
    """
    given = {"outcome": "failed" if failed else None, "conversation": conversation, "since": since}
    query: dict[str, str | int] = {"limit": limit, **{k: v for k, v in given.items() if v is not None}}
    async with BotApi.of(project) as api:
        if version is not None:
            query["version"] = await api.version(version)
        runs = (await api.get("/runs", query))["items"][::-1]
    out = console()
    out.print(table(("AT", "EVENT", "VERSION", "STATE", "OUTCOME", "MS"), [_row(run) for run in runs]))
    for run in runs if failed else ():
        out.print(f"\n[bold]{plain(run['event_id'])}[/] {plain(run['error'])}")
        if run["trace"]:
            out.print(f"[dim]{plain(run['trace'].rstrip())}[/]")


async def _follow(api: BotApi, last: int, only: dict[str, str | int]) -> None:
    """For ever."""
    while True:
        lines = (await api.get("/logs", {"after": last, "limit": _PAGE, **only}))["items"]
        show_lines(lines)
        last = lines[-1]["id"] if lines else last
        if len(lines) < _PAGE:
            await asyncio.sleep(_EVERY)


def _row(run: dict[str, Any]) -> tuple[object, ...]:
    moved = run["next_state"] not in {None, run["state"]}
    state = f"{run['state']} -> {run['next_state']}" if moved else run["state"]
    return when(run["started_at"]), run["event_id"], (run["version"] or "")[:SHORT], state, run["outcome"], f"{run['duration_ms']:.0f}"


def show_lines(lines: list[dict[str, Any]]) -> None:
    """Lines of the log, as they are listed."""
    for line in lines:
        console().print(f"[dim]{when(line['at'])}[/] {plain(line['level']):7} {plain(line['line'])}")
