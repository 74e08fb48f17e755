"""The directory of projects as every service sees it: where each database is, and its state."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from loquat_events.projects import ProjectListed

from loquat_common.bus.port import Table

_SKEW: Final = 5.0
"""Seconds by which the clocks of two machines may differ."""


def holds(table: Table, at: datetime, now: datetime) -> bool:
    """Whether the table holds all that was published before `at`: only then does a missing entry say that there is none.

    A table that is behind (the engine was away, a slow poll) lacks what its reader relies on.
    """
    return table.age() + _SKEW < (now - at).total_seconds()


class Directory:
    """A typed view of the table of `projects.directory.v1`."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def get(self, project: str) -> ProjectListed | None:
        """The entry; None for a project that is not known or is gone."""
        event = self._table.get(f"{project}:project")
        return event.data if event is not None and isinstance(event.data, ProjectListed) else None

    def is_gone(self, project: str, at: datetime, now: datetime) -> bool:
        """Whether a project that an event of `at` names has no entry any more, and not merely none yet."""
        return self.get(project) is None and holds(self._table, at, now)

    def of_organization(self, organization: str) -> list[ProjectListed]:
        """An organization's projects."""
        found = (e.data for e in self._table.values().values())
        return [d for d in found if isinstance(d, ProjectListed) and d.organization_id == organization]

    def ready(self) -> list[str]:
        """Projects whose databases are there."""
        found = (e.data for e in self._table.values().values())
        return [d.project_id for d in found if isinstance(d, ProjectListed) and d.state == "ready"]
