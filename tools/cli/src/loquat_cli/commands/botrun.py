"""`loquat bot run`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from loquat_cli.botapi import BotApi, NoContact, Project
from loquat_cli.commands.bot import read_bot
from loquat_cli.commands.botbench import Bench
from loquat_cli.commands.say import CONTACT
from loquat_cli.context import Context
from loquat_cli.show import console, plain, program

_PHONE: Final = "491510000001"
"""Who the simulator's phone page is, unless told otherwise."""
_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def run_bot(
    folder: Path = Path(),
    /,
    *,
    project: Project = None,
    contact: Annotated[tuple[str, ...], Parameter(alias="-c", negative="", show_default=False)] = (),
    force: bool = False,
) -> None:
    """Serve a folder to test contacts: each save is checked and answers the next message. Ctrl-C takes the contacts away.

    What you save becomes the project's draft; all other contacts are answered by what is deployed. The project's log and the runs are shown.

    Parameters
    ----------
    folder
        With bot.py in it.
    project
        Id or name of the project; the demo project unless named.
    contact
        A test contact by phone number or id, once for each; unless given, those of the phone page and of `loquat say`.
    force
        Overwrite at the start what others changed in the draft.
    """
    read_bot(folder)
    contacts = contact or _simulated()
    async with BotApi.of(project) as api:
        bench = Bench(api, folder, contacts, force=force)
        with _stopping():
            try:
                await bench.run()
            except asyncio.CancelledError:
                console().print("stopping")
            finally:
                await bench.leave()


def _simulated() -> tuple[str, ...]:
    owner = Context.load().owner
    if owner is None:
        raise NoContact("which test contact? Name one that has written before, with --contact")
    console().print(f"write to it at {plain(owner.simulator)}/ or with `{plain(program())} say`; Ctrl-C ends this")
    return _PHONE, CONTACT


@contextmanager
def _stopping() -> Generator[None]:
    """A signal, also the terminal's end, cancels this task; a second one what it does at its end."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is None:
        raise RuntimeError("there is no task to be stopped")
    for number in _STOPS:
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in _STOPS:
            loop.remove_signal_handler(number)
