"""`loquat bot deploy`, `rollback`, `promote`, `stop`, `pause`, `resume`, `testers`."""

# ruff: noqa: PT028  (a command whose name begins like a test's)

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from loquat_cli.botapi import SHORT, BotApi, Message, Project
from loquat_cli.commands.bot import read_bot, unlocked
from loquat_cli.errors import Trouble
from loquat_cli.show import console, plain

_CANNOT_RUN: Final = {"does_not_load", "packages_refused"}
"""Reasons that can be overruled, and not undone by it."""


class NotThat(Trouble):
    """The options do not go together, or one of them is none."""


async def deploy_bot(
    folder: Path | None = None,
    /,
    *,
    project: Project = None,
    message: Message = "",
    version: str | None = None,
    draft: bool = False,
    canary: str | None = None,
    open_conversations: bool = False,
    force: bool = False,
) -> None:
    """Deploy a bot: from its next message on every conversation is answered by this code, and none is lost meanwhile.

    Refused when it does not load, when open conversations are in states that it does not declare, or when it needs a table or a column that is not there.

    Parameters
    ----------
    folder
        With bot.py in it. Or give --version or --draft instead.
    project
        Id or name of the project; the demo project unless named.
    message
        What changed, for the history.
    version
        A version that was saved before, by its first 6 characters or more; see `loquat bot versions`.
    draft
        What the draft holds: what `loquat bot push` or the editor put there.
    canary
        Only for so many per cent of the contacts, such as 10%, in conversations that begin from now on. It stops by itself when it fails more often than
        what is deployed; else `loquat bot promote` or `loquat bot stop`. Asked again for the same code, the percentage changes.
    open_conversations
        With --canary: also in conversations that are open already.
    force
        Whatever speaks against it. What was overruled stands in the history. A version that does not load answers nobody all the same.
    """
    if sum((folder is not None, version is not None, draft)) != 1:
        raise NotThat("what shall be deployed? Give a folder, --version or --draft, one of the three")
    if open_conversations and canary is None:
        raise NotThat("--open-conversations belongs to --canary")
    body: dict[str, Any] = {"message": message} | ({"force": True} if force else {})
    if canary is not None:
        body |= {"canary": percent(canary), "open": open_conversations}
    if folder is not None:
        body["files"] = read_bot(folder)
        unlocked(body["files"])
    async with BotApi.of(project) as api:
        if version is not None:
            body["version"] = await api.version(version)
        elif draft:
            body["draft"] = True
        _say(api, await api.post("/deployments", body))


async def rollback_bot(*, project: Project = None, message: Message = "") -> None:
    """Go back, at once: from a canary to what is deployed for all others, else to the version that was deployed before.

    Parameters
    ----------
    project
        Id or name of the project; the demo project unless named.
    message
        Why, for the history.
    """
    async with BotApi.of(project) as api:
        _say(api, await api.post("/rollback", {"message": message}))


async def promote_bot(*, project: Project = None, message: Message = "", force: bool = False) -> None:
    """Deploy the canary to everybody.

    Parameters
    ----------
    project
        Id or name of the project; the demo project unless named.
    message
        Why, for the history.
    force
        Whatever speaks against it.
    """
    async with BotApi.of(project) as api:
        _say(api, await api.post("/canary/promote", {"message": message, "force": force}))


async def stop_bot(*, project: Project = None, message: Message = "") -> None:
    """Stop the canary: its contacts are answered by what is deployed for all others.

    Parameters
    ----------
    project
        Id or name of the project; the demo project unless named.
    message
        Why, for the history.
    """
    async with BotApi.of(project) as api:
        _say(api, await api.post("/canary/stop", {"message": message}))


async def pause_bot(*, project: Project = None, message: Message = "") -> None:
    """Answer nobody: what people write is recorded, and not answered afterwards either. Deploying meanwhile leaves the bot paused.

    Parameters
    ----------
    project
        Id or name of the project; the demo project unless named.
    message
        Why, for the history.
    """
    async with BotApi.of(project) as api:
        _say(api, await api.post("/pause", {"message": message}))


async def resume_bot(*, project: Project = None, message: Message = "") -> None:
    """Answer again, from the next message on.

    Parameters
    ----------
    project
        Id or name of the project; the demo project unless named.
    message
        Why, for the history.
    """
    async with BotApi.of(project) as api:
        _say(api, await api.post("/resume", {"message": message}))


async def testers_bot(
    *contacts: str,
    project: Project = None,
    version: str | None = None,
    clear: bool = False,
    message: Message = "",
) -> None:
    """List test contacts, or give some a version of their own. All others are answered as before.

    Parameters
    ----------
    contacts
        By phone number or id; they must have written once.
    project
        Id or name of the project; the demo project unless named.
    version
        Which one, by its first 6 characters or more; whatever the draft holds, unless given.
    clear
        These are test contacts no more; without any, nobody is.
    message
        Why, for the history.
    """
    async with BotApi.of(project) as api:
        deployment = (await api.get(""))["deployment"]
        testers: dict[str, str] = dict(deployment["testers"]) if deployment is not None else {}
        chosen = [await api.contact(contact) for contact in contacts]
        if clear:
            testers = {c: v for c, v in testers.items() if contacts and c not in chosen}
        elif chosen:
            testers |= dict.fromkeys(chosen, await api.version(version) if version is not None else "draft")
        if clear or chosen:
            testers = (await api.put("/testers", {"testers": testers, "message": message}))["testers"]
    out = console()
    for contact, given in testers.items():
        out.print(f"{plain(contact)} {plain(given[:SHORT])}")
    if not testers:
        out.print("there are no test contacts")


def percent(text: str) -> int:
    """`10%` or `10`.

    Raises:
        NotThat: it is none of 1 to 99.
    """
    found = re.fullmatch(r"(\d{1,2}) ?%?", text.strip())
    if found is None or int(found[1]) == 0:
        raise NotThat(f"--canary takes a percentage from 1% to 99%, not {text!r}")
    return int(found[1])


def _say(api: BotApi, made: dict[str, Any]) -> None:
    out, name = console(), plain(api.project)
    out.print(f"{name} runs version {plain(made['version'][:SHORT])} now")
    if made.get("paused"):
        out.print(f"[yellow]it is paused and answers nobody[/] until {plain(api.command('resume'))}")
    if made.get("canary") is not None:
        canary = made["canary"]
        out.print(f"{canary['percent']} % of its contacts get version {plain(canary['version'][:SHORT])}", end="")
        out.print(", in open conversations too" if canary["open"] else ", in conversations that begin from now on")
        out.print(f"[dim]next: {plain(api.command('promote'))}, or {plain(api.command('stop'))}[/]")
    if made.get("forced"):
        out.print(f"[yellow]overruled: {plain(', '.join(made['forced']))}[/]")
    if _CANNOT_RUN & {*made.get("forced", ())}:
        whom = "none of the canary's contacts is answered" if made.get("canary") is not None else "nobody is answered"
        console(stderr=True).print(f"[bold red]This version cannot run: {whom} until the next deployment.[/]")
