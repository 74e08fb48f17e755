"""A project's life as data: the steps of its creation and its deletion, and what a failure means."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

Login = Literal["bot", "editor", "direct"]
LOGINS: Final[tuple[Login, ...]] = get_args(Login)
KEPT: Final[tuple[Login, ...]] = ("bot", "editor")
"""Logins whose passwords the platform keeps. Nobody keeps that of the owner's own, which is shown once."""
CONNECTIONS: Final[Mapping[Login, int]] = {"bot": 6, "editor": 4, "direct": 4}
"""Connections of each login at most: Postgres shares no CPU fairly, so a project gets few (architecture, "Databases")."""
SIZE_LIMIT: Final = 1 << 30
"""Bytes of a project's database, until plans say otherwise."""

CREATION: Final = ("reserve", "database", "close", "open", "logins", "starter bot")
"""The steps of creation, in order. Each may be repeated; the logins come last of the database's, for they open it to its tenant."""
TRIES: Final = 3
"""Tries of a step before people are told. The next one comes after 1, 2, 4 seconds."""


class StepFailed(Exception):
    """A step did not succeed. The text is for people and holds no secret."""


@dataclass(frozen=True, slots=True)
class Names:
    """A project's database and roles. Random: a tenant sees the names of others."""

    database: str

    @classmethod
    def fresh(cls) -> Names:
        """New ones."""
        return cls(f"p_{secrets.token_hex(6)}")

    @property
    def owner(self) -> str:
        """The role that owns the project's own objects; nobody logs in as it."""
        return f"{self.database}_owner"

    def login(self, kind: Login) -> str:
        """A login's role."""
        return f"{self.database}_{kind}"


def missing(done: Collection[str]) -> list[str]:
    """The steps of creation that are still to do."""
    return [s for s in CREATION if s not in done]


def emptiest(projects: Mapping[str, int]) -> str:
    """The cluster for a new project: the one with the fewest, by name where they are equal.

    Raises:
        StepFailed: there is no cluster.
    """
    if not projects:
        raise StepFailed("no tenant cluster is set up")
    return min(projects, key=lambda name: (projects[name], name))
