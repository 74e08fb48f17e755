"""What is said of projects: the same fact has the same id each time it is said."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.ids import fact_id
from loquat_events.projects import ProjectListed

from loquat_provisioner.adapters.store import Project


class Facts:
    """Makes events of this service."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.now = clock

    def of(self, data: Payload, project: str, what: str) -> AnyEvent:
        """A fact about a project; `what` tells it from its others."""
        return Event[Payload].of(
            data, id=fact_id("project", project, what), source="/provisioner", time=self.now(), project=project, lane="project"
        )

    def listed(self, project: Project) -> AnyEvent:
        """The project's entry in the directory."""
        listed = ProjectListed(
            project_id=project.project_id,
            organization_id=project.organization_id,
            name=project.name,
            state=project.state,
            cluster=project.cluster,
            database=project.database,
            epoch=project.epoch,
        )
        return self.of(listed, project.project_id, f"listed {project.state} {project.epoch}")
