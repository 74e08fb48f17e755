"""`loquat bot preview`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from cyclopts import Parameter

from loquat_cli.botapi import SHORT, BotApi, Project
from loquat_cli.commands.botdeploy import NotThat
from loquat_cli.rest import Refused
from loquat_cli.show import console, plain, program, when

_NEXT: Final = 1.2  # seconds: what the platform asks for between two copies, and a little


async def preview_bot(
    text: str | None = None,
    /,
    *,
    project: Project = None,
    version: str | None = None,
    draft: bool = False,
    live: bool = False,
    button: str | None = None,
    row: str | None = None,
    go_on: Annotated[str | None, Parameter(name="--on")] = None,
) -> None:
    """Try a bot out: a simulated contact writes, and you see what it would get. Nothing is sent.

    It works with a throw-away copy of the project's database, unless you want otherwise.

    Parameters
    ----------
    text
        What the contact writes. Or give --button or --row instead.
    project
        Id or name of the project; the demo project unless named.
    version
        A version that was saved before, by its first 6 characters or more; see `loquat bot versions`. What is deployed unless you name one, or the draft.
    draft
        What the draft holds: what `loquat bot push` or the editor put there.
    live
        In the project's own database: what the bot does there is true and stays.
    button
        The id of a button that the contact taps.
    row
        The id of a list's row that it picks.
    go_on
        The preview of an answer before: the same database, the same contact, and the conversation goes on.
    """
    said = {k: v for k, v in {"text": text, "button": button, "row": row}.items() if v is not None}
    if len(said) != 1:
        raise NotThat("what does the contact do? Give a text, --button or --row, one of the three")
    if draft and version is not None:
        raise NotThat("--version and --draft do not go together")
    body: dict[str, Any] = {"message": said, "draft": draft}
    if live or go_on is None:
        body["database"] = "live" if live else "clone"
    if go_on is not None:
        body["preview_id"] = go_on
    async with BotApi.of(project) as api:
        if version is not None:
            body["version"] = await api.version(version)
        seen = await _tried(api, body)
    _show(seen, api.project)
    if seen["error"] is not None:
        sys.exit(1)


async def _tried(api: BotApi, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The preview. Copies are made one a second at most: whoever is a moment too soon need not be told."""
    try:
        seen: Mapping[str, Any] = await api.post("/preview", body)
    except Refused as refused:
        if refused.code != "too_often":
            raise
        await asyncio.sleep(_NEXT)
        seen = await api.post("/preview", body)
    return seen


def _show(seen: Mapping[str, Any], project: str) -> None:
    out, aside = console(), console(stderr=True)
    for line in seen["log"]:
        aside.print(f"[dim]{plain(line['level'])}: {plain(line['line'])}[/]")
    for reply in seen["replies"]:
        for line in _lines(reply):
            out.print(plain(line))
    if seen["error"] is not None:
        aside.print(f"[red]{plain(seen['outcome'])}: {plain(seen['error'])}[/]")
        aside.print(plain(seen["trace"] or ""))
    where = "the project's own database" if seen["database"] == "live" else "a throw-away copy of the database"
    moved = f"{seen['state_before']} -> {'closed' if seen['ended'] else seen['state']}"
    aside.print(f"[dim]{plain(seen['version'][:SHORT])} in {where}: {plain(seen['outcome'])}, {plain(moved)}[/]")
    if seen["holder"] not in {None, "bot"}:
        aside.print(f"[dim]the conversation is held: {plain(seen['holder'])}[/]")
    if timers := [f"{t['name']} at {when(t['due_at'])}" for t in seen["timers"] if not t["name"].startswith("loquat:")]:
        aside.print(f"[dim]timers: {plain(', '.join(timers))}[/]")
    if seen["touched"]:
        aside.print(f"[dim]rows: {plain(', '.join(f'{table} {count}' for table, count in seen['touched'].items()))}[/]")
    again = f"{program()} bot preview ... --on {seen['preview_id']} --project {project}"
    aside.print(f"[dim]it goes on with: {plain(again)}[/]")
    if seen["database"] == "live":
        aside.print(f"[yellow]its contact {plain(seen['contact_id'])} is in the project until somebody erases it[/]")


def _lines(reply: Mapping[str, Any]) -> Iterator[str]:
    content: Any = reply["content"] or {}
    yield reply["text"] or f"({reply['type']})"
    for button in content.get("buttons", ()):
        yield f"  [{button.get('title')}] --button {button.get('id')}"
    for section in content.get("sections", ()):
        for row in section.get("rows", ()):
            yield f"  - {row.get('title')} --row {row.get('id')}"
