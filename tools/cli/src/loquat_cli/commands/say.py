"""`loquat say`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


async def say(
    text: str,
    /,
    *,
    project: Annotated[str | None, Parameter(alias="-p")] = None,
    sender: Annotated[str, Parameter(name="--from")] = "4915112345678",
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
