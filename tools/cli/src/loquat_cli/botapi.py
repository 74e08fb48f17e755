"""The bot's part of the API, for the commands of `loquat bot`."""

from __future__ import annotations

import shlex
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import quote

from cyclopts import Parameter

from loquat_cli.context import Context
from loquat_cli.errors import Trouble
from loquat_cli.rest import MOST, Rest
from loquat_cli.show import program

Project = Annotated[str | None, Parameter(alias="-p")]
Message = Annotated[str, Parameter(alias="-m", show_default=False)]
SHORT: Final = 12
"""Characters of a version that are shown: enough to tell a project's apart."""
_PATIENCE: Final = 70.0  # seconds: a version that is deployed is loaded first, perhaps behind others
_LEAST: Final = 6  # characters of a version that may be given


class NoVersion(Trouble):
    """There is no such version, or several are."""


class NoContact(Trouble):
    """There is no such contact."""


class NoName(Trouble):
    """That is no name of a key, a secret or a schedule."""


def place(name: str, what: str) -> str:
    """A name as a part of a path.

    Raises:
        NoName: no path can lead there.
    """
    if not name or name in {".", ".."}:
        raise NoName(f"{name!r} is no name of {what}")
    return quote(name, safe="")


@dataclass(frozen=True, slots=True)
class BotApi:
    """The bot of one project."""

    rest: Rest
    project: str
    named: str | None = None
    """What the project was called on the command line, if it was."""

    @classmethod
    @asynccontextmanager
    async def of(cls, named: str | None) -> AsyncGenerator[BotApi]:
        """The bot of the project of that id or name; of the demo project unless named."""
        context = Context.load()
        async with context.rest() as rest:
            yield cls(rest, await context.project(rest, named), named)

    def command(self, words: str) -> str:
        """How a further command of this bot is called, from where this one was called."""
        return f"{program()} bot {words}" + (f" --project {shlex.quote(self.named)}" if self.named is not None else "")

    async def get(self, path: str, query: dict[str, str | int] | None = None) -> Any:
        """A question."""
        return await self.rest.get(self._at(path), query, patience=_PATIENCE)

    async def post(self, path: str, body: object) -> Any:
        """A wish."""
        return await self.rest.post(self._at(path), body, patience=_PATIENCE)

    async def put(self, path: str, body: object, headers: dict[str, str] | None = None) -> Any:
        """What is to be there."""
        return await self.rest.put(self._at(path), body, headers=headers, patience=_PATIENCE)

    async def patch(self, path: str, body: object) -> Any:
        """What is to be otherwise."""
        return await self.rest.patch(self._at(path), body, patience=_PATIENCE)

    async def delete(self, path: str) -> None:
        """What is to go."""
        await self.rest.delete(self._at(path))

    async def version(self, given: str) -> str:
        """The whole name of a version, by its beginning.

        Raises:
            NoVersion: none begins like that, or several do.
        """
        if len(given) < _LEAST:
            raise NoVersion(f"give at least {_LEAST} characters of the version, not {given!r}; `{self.command('versions')}` lists them")
        found: list[str] = []
        async for page in self.rest.pages(self._at("/versions"), {"limit": MOST}):
            found += [v["version"] for v in page["items"] if v["version"].startswith(given.lower())]
        if len(found) != 1:
            raise NoVersion(
                f"{len(found) or 'no'} version{'s begin' if len(found) > 1 else ' begins'} with {given!r}; see `{self.command('versions')}`"
            )
        return found[0]

    async def contact(self, given: str) -> str:
        """A contact's id, by itself or by the phone number.

        Raises:
            NoContact: nobody has that number.
        """
        digits = given.removeprefix("+").replace(" ", "")
        if not digits.isdecimal():
            return given
        async for page in self.rest.pages(f"/v1/projects/{quote(self.project, safe='')}/contacts", {"limit": MOST}):
            for contact in page["items"]:
                if (contact["phone_number"] or "").removeprefix("+") == digits:
                    return str(contact["id"])
        raise NoContact(f"no contact has the number {given}; a contact is there when it has written once")

    def _at(self, path: str) -> str:
        return f"/v1/projects/{quote(self.project, safe='')}/bot{path}"
