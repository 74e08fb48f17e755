"""A folder that answers test contacts while it is written: saved, checked, put into the draft, and what comes of it shown."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from loquat_bot_runner.domain import bundle

from loquat_cli.botapi import SHORT, BotApi, NoContact
from loquat_cli.commands.bot import BotRefused, NoBot, bot_paths, declarations, read_bot
from loquat_cli.commands.botdraft import Conflict, replace_draft
from loquat_cli.commands.botlogs import show_lines
from loquat_cli.rest import Away, Refused, passes
from loquat_cli.show import console, plain, program, when

_EVERY: Final = 0.5  # seconds between two looks at the folder, and at what the bot did
_SETTLED: Final = 0.1  # seconds without a change after which a save is complete: an editor saves several files one after the other
_MOST_WAITS: Final = 20
_PAGE: Final = 200
_CALLS_AGAIN: Final = 4  # rounds until contacts that have not written are looked for again
_LEAVING: Final = 10.0  # seconds for taking the test contacts away
_DRAFT: Final = "draft"

Stamp = Mapping[Path, tuple[int, int]]


class Bench:
    """Serves a folder to test contacts until it is cancelled. `leave` gives them back what they were answered by before."""

    def __init__(self, api: BotApi, folder: Path, contacts: Sequence[str], *, force: bool) -> None:
        self._api, self._folder, self._force = api, folder, force
        self._stamp: Stamp = {}
        self._waiting = list(contacts)
        self._told_waiting = False
        self._rounds = 0
        self._before: dict[str, str | None] = {}
        self._line = 0
        self._version = ""
        self._seen = set[str]()
        self._troubled = ""

    async def run(self) -> None:
        """For ever.

        Raises:
            Trouble: the first round met it; what comes later is said, and tried again.
        """
        newest = (await self._api.get("/logs", {"limit": 1}))["items"]
        self._line = newest[0]["id"] if newest else 0
        await self._round()
        while True:
            await asyncio.sleep(_EVERY)
            try:
                await self._round()
                self._troubled = ""
            except (Away, Refused) as trouble:
                if not passes(trouble):
                    raise
                if self._troubled != str(trouble):  # once
                    self._troubled = str(trouble)
                    console(stderr=True).print(f"[yellow]{plain(trouble)}; it is tried again[/]")

    async def leave(self) -> None:
        """Takes the test contacts away; says it if that fails."""
        if not self._before:
            return
        try:
            async with asyncio.timeout(_LEAVING):
                testers = await self._testers()
                mine = [c for c in self._before if testers.get(c) == _DRAFT]
                if not mine:
                    return
                testers = {c: v for c, v in testers.items() if c not in mine} | {c: v for c in mine if (v := self._before[c]) is not None}
                await self._api.put("/testers", {"testers": testers, "message": f"{program()} bot run ended"})
        except (TimeoutError, Away, Refused, asyncio.CancelledError) as error:
            names = plain(" ".join(self._before))
            said = plain(error) or type(error).__name__
            console(stderr=True).print(f"[yellow]{names} may be answered by the draft still ({said}); take them away with[/]")
            console(stderr=True).print(f"  {plain(program())} bot testers {names} --clear --project {plain(self._api.project)}")
            return
        console().print(
            f"the test contacts are answered as before; `{plain(self._api.command('deploy --draft'))}` deploys what you saved last"
        )

    async def _round(self) -> None:
        await self._save()
        await self._point()
        await self._show()

    async def _save(self) -> None:
        """What was saved becomes the draft, if it would run."""
        stamp = stamped(self._folder)
        if stamp == self._stamp:
            return
        stamp = await _settled(self._folder, stamp)
        try:
            files = read_bot(self._folder)
            ready = await declarations(files)
            await self._put(files)
            console().print(f"[bold]saved[/] {self._version[:SHORT]}: {len(ready.states)} states, {len(ready.handlers)} handlers")
        except (NoBot, BotRefused, FileNotFoundError) as wrong:
            console(stderr=True).print(f"[bold red]not served:[/] {plain(wrong)}{self._still()}")
        except Conflict as conflict:
            if not self._version:
                raise
            console(stderr=True).print(f"[bold red]not served:[/] {plain(conflict)}{self._still()}")
        self._stamp = stamp

    async def _put(self, files: dict[str, str]) -> None:
        await self._show()  # what the version before did
        version = bundle.digest(files)
        earlier = (await self._api.get("/runs", {"version": version, "limit": _PAGE}))["items"]
        await replace_draft(self._api, self._folder, files, force=self._force and not self._version)
        self._seen, self._version = {run["id"] for run in earlier}, version

    def _still(self) -> str:
        return "\n[dim]what was saved before goes on answering[/]" if self._version else ""

    async def _point(self) -> None:
        """Contacts get the draft as soon as they are there."""
        self._rounds += 1
        if not self._version or not self._waiting or (self._told_waiting and self._rounds % _CALLS_AGAIN):
            return
        found: dict[str, str] = {}
        for contact in self._waiting:
            try:
                found[contact] = await self._api.contact(contact)
            except NoContact:
                continue
        if found:
            testers = await self._testers()
            self._before |= {c: testers.get(c) for c in found.values() if testers.get(c) != _DRAFT}
            await self._api.put("/testers", {"testers": testers | dict.fromkeys(found.values(), _DRAFT), "message": f"{program()} bot run"})
            self._waiting = [c for c in self._waiting if c not in found]
            console().print(f"[bold green]{plain(', '.join(found))}[/]: answered by this folder from the next message on")
        if self._waiting and not self._told_waiting:
            names = plain(", ".join(self._waiting))
            console().print(f"[dim]{names}: no message yet. What is deployed answers the first one, this folder all that follow[/]")
        self._told_waiting = True

    async def _testers(self) -> dict[str, str]:
        deployment = (await self._api.get(""))["deployment"]
        return dict(deployment["testers"]) if deployment is not None else {}

    async def _show(self) -> None:
        """New lines of the project's log, and what this folder's code did."""
        lines = (await self._api.get("/logs", {"after": self._line, "limit": _PAGE}))["items"]
        show_lines(lines)
        self._line = lines[-1]["id"] if lines else self._line
        if not self._version:
            return
        runs: list[dict[str, Any]] = (await self._api.get("/runs", {"version": self._version, "limit": _PAGE}))["items"]
        for run in reversed(runs):
            if run["id"] not in self._seen:
                console().print(told(run))
        self._seen = {run["id"] for run in runs}


def told(run: Mapping[str, Any]) -> str:
    """A run in a line, and the bot's own frames if it failed."""
    state = run["state"] or "no state"
    state += f" -> {run['next_state']}" if run["next_state"] not in {None, run["state"]} else ""
    replies = f"{run['replies']} repl{'y' if run['replies'] == 1 else 'ies'}"
    line = f"[dim]{when(run['started_at'])}[/] {plain(state)}: {plain(run['outcome'])}, {replies}, {run['duration_ms']:.0f} ms"
    if run["error"]:
        line += f"\n[red]{plain(run['error'])}[/]"
    if run["trace"]:
        line += f"\n[dim]{plain(run['trace'].rstrip())}[/]"
    return line


def stamped(folder: Path) -> Stamp:
    """When each of a bot's files was written last, and its size."""
    found: dict[Path, tuple[int, int]] = {}
    for path in bot_paths(folder):
        try:
            status = path.stat()
        except FileNotFoundError:  # removed meanwhile
            continue
        found[path] = status.st_mtime_ns, status.st_size
    return found


async def _settled(folder: Path, stamp: Stamp) -> Stamp:
    """Once nothing is written any more; what never rests is taken as it is."""
    for _ in range(_MOST_WAITS):
        await asyncio.sleep(_SETTLED)
        before, stamp = stamp, stamped(folder)
        if stamp == before:
            break
    return stamp
