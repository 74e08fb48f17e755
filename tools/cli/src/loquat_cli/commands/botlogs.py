"""`loquat bot logs` and `runs`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final
from uuid import UUID

from cyclopts import Parameter

from loquat_cli.botapi import SHORT, BotApi, Project
from loquat_cli.rest import Away, Refused, passes
from loquat_cli.show import console, plain, table, when

_EVERY: Final = 1.0  # seconds between two looks for new lines
_PAGE: Final = 200
_BEFORE_ALL: Final = str(UUID(int=0))
"""No run has an id below it."""


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
        Go on showing lines as they come, until Ctrl-C. While Loquat does not answer, it is asked again, and no line is left out.
    event
        Only the lines of this event; see `loquat bot runs`.
    """
    only: dict[str, str | int] = {"event": event} if event is not None else {}
    async with BotApi.of(project) as api:
        lines = (await api.get("/logs", {"limit": limit, **only}))["items"][::-1]
        show_lines(lines)
        if follow:
            last = lines[-1]["id"] if lines else 0
            async for page in _following(api, "/logs", {**only, "after": last}):
                if page["missed"]:
                    console(stderr=True).print("[yellow]lines are missing here: there were more than a project's log keeps[/]")
                show_lines(page["items"])


async def runs_bot(
    *,
    project: Project = None,
    limit: Annotated[int, Parameter(alias="-n")] = 20,
    failed: bool = False,
    version: str | None = None,
    conversation: str | None = None,
    since: str | None = None,
    follow: Annotated[bool, Parameter(alias="-f")] = False,
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
        Only of this version, by its first 6 characters or more.
    conversation
        Only of this conversation.
    since
        Only since then, such as 2026-01-31T12:00:00Z.
    follow
        Go on showing runs as they come, until Ctrl-C. While Loquat does not answer, it is asked again, and no run is left out.
    """
    given = {"outcome": "failed" if failed else None, "conversation": conversation, "since": since}
    query: dict[str, str | int] = {"limit": limit, **{k: v for k, v in given.items() if v is not None}}
    async with BotApi.of(project) as api:
        if version is not None:
            query["version"] = await api.version(version)
        runs = (await api.get("/runs", query))["items"][::-1]
        console().print(table(("AT", "EVENT", "VERSION", "STATE", "OUTCOME", "MS"), [_row(run) for run in runs]))
        if failed:
            _show_failures(runs)
        if follow:
            async for page in _following(api, "/runs", {**query, "after": runs[-1]["id"] if runs else _BEFORE_ALL}):
                for run in page["items"]:
                    console().print("  ".join(plain(cell) for cell in _row(run)))
                if failed:
                    _show_failures(page["items"])


def _show_failures(runs: list[dict[str, Any]]) -> None:
    """An event that failed alike several times is shown once."""
    out = console()
    for (event, error, trace), tries in Counter((run["event_id"], run["error"], run["trace"]) for run in runs).items():
        out.print(f"\n[bold]{plain(event)}[/] {plain(error)}{f' ({tries} tries)' if tries > 1 else ''}")
        if trace:
            out.print(f"[dim]{plain(trace.rstrip())}[/]")


async def _following(api: BotApi, path: str, query: dict[str, str | int]) -> AsyncGenerator[Any]:
    """Pages of what comes, for ever: each goes on behind the last id of the one before, whatever happened in between."""
    asked, troubled = {**query, "limit": _PAGE}, False
    while True:
        found = 0
        try:
            page = await api.get(path, asked)
        except (Away, Refused) as trouble:
            if not passes(trouble):
                raise
            if not troubled:  # once
                console(stderr=True).print(f"[yellow]{plain(trouble)}; it is asked again[/]")
            troubled = True
        else:
            troubled, found = False, len(page["items"])
            if found:
                asked["after"] = page["items"][-1]["id"]
                yield page
        if found < _PAGE:
            await asyncio.sleep(_EVERY)


def _row(run: dict[str, Any]) -> tuple[object, ...]:
    moved = run["next_state"] not in {None, run["state"]}
    state = f"{run['state']} -> {run['next_state']}" if moved else run["state"]
    return when(run["started_at"]), run["event_id"], (run["version"] or "")[:SHORT], state, run["outcome"], f"{run['duration_ms']:.0f}"


def show_lines(lines: list[dict[str, Any]]) -> None:
    """Lines of the log, as they are listed."""
    for line in lines:
        console().print(f"[dim]{when(line['at'])}[/] {plain(line['level']):7} {plain(line['line'])}")
