"""`loquat number`."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated
from urllib.parse import quote

from cyclopts import Parameter

from loquat_cli.context import Context
from loquat_cli.show import console, plain, table


async def connect_number(
    phone_number_id: str,
    /,
    *,
    waba: str,
    project: Annotated[str | None, Parameter(alias="-p")] = None,
    token: str | None = None,
    display: str | None = None,
    move_from: str | None = None,
) -> None:
    """Connect a WhatsApp number to a project.

    Parameters
    ----------
    phone_number_id
        The number's id at Meta, not the telephone number.
    waba
        The id of its WhatsApp business account.
    project
        Id or name of the project; the demo project unless named.
    token
        The account's access token. Better leave it out: it is asked for, or read from standard input, and stays out of the shell's history.
    display
        The telephone number as people know it.
    move_from
        The project that has the number now, if it shall move.
    """
    secret = token or (getpass.getpass("Access token: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    context = Context.load()
    async with context.rest() as rest:
        body = {"phone_number_id": phone_number_id, "waba_id": waba, "token": secret, "display_phone_number": display}
        if move_from is not None:
            body["move_from"] = await context.project(rest, move_from)
        chosen = await context.project(rest, project)
        await rest.post(f"/v1/projects/{chosen}/numbers", {k: v for k, v in body.items() if v is not None})
    console().print(f"{plain(phone_number_id)} belongs to {plain(chosen)}; its webhook is {plain(context.url)}/webhooks/whatsapp")


async def disconnect_number(phone_number_id: str, /, *, project: Annotated[str | None, Parameter(alias="-p")] = None) -> None:
    """Take a WhatsApp number from a project. What comes for it is kept until a project has it.

    Parameters
    ----------
    phone_number_id
        The number's id at Meta, as `loquat number list` shows it.
    project
        Id or name of the project; the demo project unless named.
    """
    context = Context.load()
    async with context.rest() as rest:
        chosen = await context.project(rest, project)
        await rest.delete(f"/v1/projects/{chosen}/numbers/{quote(phone_number_id, safe='')}")
    console().print(f"{plain(phone_number_id)} belongs to {plain(chosen)} no more")


async def list_number(*, project: Annotated[str | None, Parameter(alias="-p")] = None) -> None:
    """List a project's numbers.

    Parameters
    ----------
    project
        Id or name of the project; the demo project unless named.
    """
    context = Context.load()
    async with context.rest() as rest:
        items = (await rest.get(f"/v1/projects/{await context.project(rest, project)}/numbers"))["items"]
    rows = [(n["phone_number_id"], n["display_phone_number"], n["waba_id"], n["state"]) for n in items]
    console().print(table(("PHONE NUMBER ID", "NUMBER", "WABA", "STATE"), rows))
