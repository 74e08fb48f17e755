"""The directory of projects as every service sees it: where each database is, and its state."""

from __future__ import annotations

from loquat_events.projects import ProjectListed

from loquat_common.bus.port import Table


class Directory:
    """A typed view of the table of `projects.directory.v1`."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def get(self, project: str) -> ProjectListed | None:
        """The entry; None for a project that is not known or is gone."""
        event = self._table.get(f"{project}:project")
        return event.data if event is not None and isinstance(event.data, ProjectListed) else None

    def of_organization(self, organization: str) -> list[ProjectListed]:
        """An organization's projects."""
        found = (e.data for e in self._table.values().values())
        return [d for d in found if isinstance(d, ProjectListed) and d.organization_id == organization]
