"""Which project a request is about, where its database is, and what is said of changes to it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

from loquat_common.bus.port import Bus, BusUnavailable
from loquat_common.db import DatabaseAway
from loquat_common.problems import Problem, not_found
from loquat_common.settings import ClusterAddress
from loquat_events.envelope import Event, Payload

from loquat_provisioner.adapters.databases import ProjectDatabases
from loquat_provisioner.adapters.store import Project, Store
from loquat_provisioner.domain.life import Names

BELOW: Final = "/internal/projects/{project_id}"


class Places:
    """Ready projects and the clusters that hold them. `shown` are the addresses by which owners reach clusters."""

    def __init__(
        self,
        store: Store,
        clusters: Mapping[str, ProjectDatabases],
        addresses: Mapping[str, ClusterAddress],
        shown: Mapping[str, tuple[str, int]],
    ) -> None:
        self._store, self._clusters, self._addresses, self._shown = store, clusters, addresses, shown

    async def of(self, project_id: str) -> tuple[Project, Names, ProjectDatabases]:
        """A project that can be worked at.

        Raises:
            Problem: 404 when there is none, 409 when it is not ready.
        """
        project = await self.known(project_id)
        if project.state != "ready" or project.cluster is None or project.database is None:
            raise Problem(409, "project_not_ready", "The project is not ready", f"It is {project.state}")
        if project.cluster not in self._clusters:
            raise Problem(503, "database_away", "The project's database does not answer", f"The cluster {project.cluster} is not set up")
        return project, Names(project.database), self._clusters[project.cluster]

    async def known(self, project_id: str) -> Project:
        """A project that there is, in whatever state.

        Raises:
            Problem: 404 when there is none.
        """
        project = await self._store.get(project_id)
        if project is None or project.state in {"deleting", "deleted"}:
            raise not_found("project")
        return project

    def address(self, cluster: str) -> ClusterAddress:
        """Where this service reaches the cluster."""
        return self._addresses[cluster]

    def shown(self, cluster: str) -> tuple[str, int]:
        """Where an owner reaches it: host and port."""
        address = self._addresses[cluster]
        return self._shown.get(cluster, (address.host, address.port))


class Sayings:
    """What this API says to the bus."""

    def __init__(self, bus: Bus, clock: Callable[[], datetime]) -> None:
        self._bus, self.now = bus, clock

    async def say(self, data: Payload, project: str, *, lane: str = "database", key: UUID | None = None) -> None:
        """Returns when it is durable. It is said after the change was made: a caller who hears 503 repeats the change, which does no harm.

        Raises:
            Problem: 503 when it is not known to be.
        """
        event = Event[Payload].of(data, id=key or uuid4(), source="/provisioner", time=self.now(), project=project, lane=lane)
        try:
            await self._bus.publish(event)
        except BusUnavailable:
            raise Problem(503, "unavailable", "The change cannot be told to the others now", "Send the request again") from None


@contextmanager
def answering() -> Generator[None]:
    """A cluster that is away is a problem for people.

    Raises:
        Problem: 503.
    """
    try:
        yield
    except DatabaseAway:
        raise Problem(503, "database_away", "The project's database does not answer", "Try again") from None
