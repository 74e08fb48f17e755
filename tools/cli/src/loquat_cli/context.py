"""What a command works with: the Loquat of this folder, or one elsewhere, and the key to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from loquat_cli.errors import Trouble
from loquat_cli.home import Home
from loquat_cli.owner import Owner
from loquat_cli.rest import Rest
from loquat_cli.settings import ClientSettings


class NotFound(Trouble):
    """There is no Loquat to talk to, or no such thing in it."""


@dataclass(frozen=True, slots=True)
class Context:
    """Whom to ask, and with which key. `owner` is known for the stack of this folder only."""

    url: str
    key: str = field(repr=False)
    owner: Owner | None = None

    @classmethod
    def load(cls, settings: ClientSettings | None = None) -> Context:
        """From LOQUAT_URL and LOQUAT_API_KEY, else from $LOQUAT_HOME/owner.json.

        Raises:
            NotFound: neither is there.
        """
        chosen = settings or ClientSettings()
        owner = Owner.load(Home(chosen.home).owner_file)
        if chosen.url is not None:
            if chosen.api_key is None:
                raise NotFound("LOQUAT_URL is set, LOQUAT_API_KEY is not: which key shall I use there?")
            return cls(chosen.url, chosen.api_key.get_secret_value())
        if owner is None:
            raise NotFound(
                f"there is no Loquat in {Home(chosen.home).path}. Start one with `loquat up`, or set LOQUAT_HOME, or LOQUAT_URL and LOQUAT_API_KEY"
            )
        key = chosen.api_key.get_secret_value() if chosen.api_key is not None else owner.api_key
        return cls(owner.gateway, key, owner)

    def rest(self) -> Rest:
        """The public API."""
        return Rest(self.url, self.key)

    def simulator(self) -> Rest:
        """The simulator of this folder's stack.

        Raises:
            NotFound: the Loquat is elsewhere.
        """
        if self.owner is None:
            raise NotFound("the simulator belongs to the stack of `loquat up`; unset LOQUAT_URL to use it")
        return Rest(self.owner.simulator)

    async def project(self, rest: Rest, named: str | None) -> str:
        """A project's id by its id or name; the demo project unless named.

        Raises:
            NotFound: no project is called that, or several are.
        """
        if named is None:
            if self.owner is None or not self.owner.project_id:
                raise NotFound("which project? Name it with --project")
            return self.owner.project_id
        listed = await rest.all("/v1/projects")
        matching = [p["id"] for p in listed if named == p["id"]] or [p["id"] for p in listed if named == p["name"]]
        if len(matching) != 1:
            several = f"{len(matching)} projects are called {named!r}: use the id" if matching else f"there is no project {named!r}"
            raise NotFound(f"{several}. See `loquat project list`")
        project: str = matching[0]
        return project
