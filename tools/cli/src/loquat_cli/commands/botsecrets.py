"""`loquat bot secrets`: a value is asked for or read from standard input, so that no shell's history and no list of processes has it."""

from __future__ import annotations

import getpass
import sys

from loquat_rest.botsettings import LONGEST_SECRET

from loquat_cli.botapi import BotApi, Project, place
from loquat_cli.errors import Trouble
from loquat_cli.show import console, plain, table, when


class NoSecret(Trouble):
    """What was given cannot be a secret."""


async def list_secrets(*, project: Project = None) -> None:
    """List the names of secrets. Nobody is shown their values.

    Parameters
    ----------
    project
        Id or name of the project; the demo project unless named.
    """
    async with BotApi.of(project) as api:
        items = (await api.get("/secrets"))["items"]
    console().print(table(("NAME", "SET"), [(s["name"], when(s["updated_at"])) for s in items]))


async def set_secrets(name: str, /, *, project: Project = None) -> None:
    """Set a secret, from the bot's next event on. Its value is asked for, or read from standard input (one end of line at its end goes).

    Parameters
    ----------
    name
        What `ctx.secrets` has it under.
    project
        Id or name of the project; the demo project unless named.
    """
    path, value = f"/secrets/{place(name, 'a secret')}", _given()
    async with BotApi.of(project) as api:
        made = await api.put(path, {"value": value})
    console().print(f"{plain(made['name'])} is set")


async def unset_secrets(name: str, /, *, project: Project = None) -> None:
    """Remove a secret, from the bot's next event on.

    Parameters
    ----------
    name
        Its name.
    project
        Id or name of the project; the demo project unless named.
    """
    async with BotApi.of(project) as api:
        await api.delete(f"/secrets/{place(name, 'a secret')}")
    console().print(f"{plain(name)} is not set any more")


def _given() -> str:
    value = getpass.getpass("Value: ") if sys.stdin.isatty() else sys.stdin.read(LONGEST_SECRET + 2)
    value = value.removesuffix("\n").removesuffix("\r")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise NoSecret("the secret is no UTF-8 text") from None
    if not 1 <= size <= LONGEST_SECRET:
        raise NoSecret(f"the secret has {'no' if not size else 'too many'} bytes; 1 to {LONGEST_SECRET} are possible")
    return value
