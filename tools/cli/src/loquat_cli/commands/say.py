"""`loquat say`."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Annotated, Any, Final

from cyclopts import Parameter

from loquat_cli.context import Context, NotFound
from loquat_cli.errors import Trouble
from loquat_cli.owner import Owner
from loquat_cli.rest import Refused, Rest
from loquat_cli.show import console, plain

CONTACT: Final = "4915112345678"
"""Who speaks unless told otherwise."""
_MORE: Final = 1.0  # seconds without a further reply after which the bot is taken to have said all


class NoTime(Trouble):
    """Nobody can wait that long."""


async def say(
    text: str,
    /,
    *,
    project: Annotated[str | None, Parameter(alias="-p")] = None,
    sender: Annotated[str, Parameter(name="--from")] = CONTACT,
    wait: float = 10.0,
) -> None:
    """Send a message as a contact through the simulator and print what the bot answers.

    Parameters
    ----------
    text
        What the contact says.
    project
        Id or name of the project; the demo project unless named.
    sender
        The contact's telephone number.
    wait
        Seconds to wait for the first reply.
    """
    if not 0 <= wait < math.inf:
        raise NoTime(f"--wait takes seconds from 0 on, not {wait:g}")
    context = Context.load()
    chosen = await _number(context, project)
    number: str = chosen["phone_number_id"]
    async with context.simulator() as simulator:
        phone = {"phone_number_id": number, "contact": sender}
        last = (await simulator.get("/api/messages", phone))["last"]
        message = {"phone_number_id": number, "from": sender, "type": "text", "text": text}
        try:
            await simulator.post("/api/messages", message)
        except Refused as refused:
            if refused.code != "not_found" or context.owner is None:
                raise
            # It knows the demo project's number alone after a start; every webhook goes to the same app here.
            await _introduce(simulator, chosen, context.owner)
            await simulator.post("/api/messages", message)
        replies = await _replies(simulator, phone, last, wait)
    for reply in replies:
        for line in lines(reply):
            console().print(plain(line))
    if not replies:
        there = f" --project {shlex.quote(project)}" if project is not None else ""
        looks = f"`loquat bot runs --failed{there}`, `loquat bot versions{there}` and `loquat status`"
        console(stderr=True).print(f"[yellow]no reply within {wait:g} s[/]; see {plain(looks)}")
        sys.exit(1)


async def _introduce(simulator: Rest, number: Mapping[str, Any], owner: Owner) -> None:
    """Lets the simulator play a number that was connected to a project of this folder's stack."""
    played = {k: number[k] for k in ("phone_number_id", "waba_id", "display_phone_number") if number.get(k)}
    app = {"webhook_url": f"{owner.gateway}/webhooks/whatsapp", "app_secret": owner.app_secret, "verify_token": owner.verify_token}
    await simulator.post("/api/numbers", {"display_phone_number": number["phone_number_id"]} | played | app)


async def _number(context: Context, project: str | None) -> Mapping[str, Any]:
    if project is None and context.owner is not None:
        return {"phone_number_id": context.owner.phone_number_id}
    async with context.rest() as rest:
        chosen = await context.project(rest, project)
        listed = (await rest.get(f"/v1/projects/{chosen}/numbers"))["items"]
    if not listed:
        raise NotFound(f"project {chosen} has no number: connect one with `loquat number connect`")
    first: Mapping[str, Any] = listed[0]
    return first


async def _replies(simulator: Rest, phone: Mapping[str, str], last: int, wait: float) -> list[dict[str, Any]]:
    """What the phone gets until nothing more comes for a second."""
    found: list[dict[str, Any]] = []
    end = monotonic() + wait
    while True:
        pause = min(_MORE if found else end - monotonic(), 30.0)  # the simulator waits no longer than 30 s at a time
        if pause <= 0:
            return found
        answer = await simulator.get("/api/messages", {**phone, "after": last, "wait": f"{pause:.2f}"}, patience=pause + 10)
        if not answer["messages"] and found:
            return found
        found += answer["messages"]
        last = answer["last"]


def lines(message: dict[str, Any]) -> Iterator[str]:
    """A message as a terminal shows it: its text, then what can be chosen."""
    yield message["text"] or f"[{message['type']}]"
    action: dict[str, Any] = message["raw"].get("action", {})
    for button in action.get("buttons", ()):
        yield f"  [ {button['reply']['title']} ]"
    if (form := action.get("parameters", {}).get("flow_cta")) is not None:
        yield f"  [ {form} ]"
    for section in action.get("sections", ()):
        for row in section["rows"]:
            yield f"  - {row['title']}" + (f": {row['description']}" if row.get("description") else "")
