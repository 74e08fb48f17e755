"""Whose turn it is: fair over projects by the slot-seconds they used, with a cap on each that shrinks while its events are slow."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from loquat_common.bus.limits import Limits

_SMOOTH = 0.2  # weight of the last run in a project's typical run
_LEAST = 0.001  # seconds charged at least: a project of very short events must pay, too


@dataclass(slots=True)
class Project:
    """A project's share of this member. `ready` and `lanes` are (partition, lane)."""

    name: str
    cap: int
    ready: dict[tuple[str, str], None] = field(default_factory=dict[tuple[str, str], None])  # oldest first
    lanes: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    running: int = 0
    depth: int = 0  # events in memory without a row
    used: float = 0.0  # slot-seconds
    typical: float = 0.01
    queued: bool = False
    spills: float = float("-inf")  # until then its events go to rows at once while it is at its cap

    @property
    def capped(self) -> bool:
        """At its cap."""
        return self.running >= self.cap


class Turns:
    """The projects of a member, and which of them may start an event next."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.running = 0
        self.blocked: dict[str, str] = {}
        self._projects: dict[str, Project] = {}
        self._heap: list[tuple[float, str]] = []
        self._floor = 0.0  # `used` of the project served last: where a newcomer starts

    def project(self, name: str) -> Project:
        """The project; new ones begin where the others stand, without credit."""
        return self._projects.setdefault(name, Project(name, self._limits.project_cap, used=self._floor))

    def capped(self) -> Iterator[Project]:
        """Projects at their cap."""
        return (p for p in self._projects.values() if p.capped)

    def forget_idle(self) -> None:
        """Drops projects that have nothing here, so that memory does not grow with the number of projects."""
        for name in [n for n, p in self._projects.items() if not (p.lanes or p.running or p.queued)]:
            del self._projects[name]

    def queue(self, project: Project) -> None:
        """Gives a project its place if it has something to start and may."""
        if project.queued or not project.ready or project.name in self.blocked or project.capped:
            return
        if project.running == 0:
            project.used = max(project.used, self._floor)
        project.queued = True
        heapq.heappush(self._heap, (project.used, project.name))

    def next(self) -> Project | None:
        """The project that used least among those that wait and may start, while there is a free slot."""
        while self._heap and self.running < self._limits.concurrency:
            used, name = heapq.heappop(self._heap)
            project = self._projects[name]
            project.queued = False
            if used != project.used:
                self.queue(project)  # its bill changed since it was queued
            elif not project.capped and name not in self.blocked:
                return project
        return None

    def start(self, project: Project) -> float:
        """Takes a slot; the seconds charged in advance."""
        self._floor = project.used
        project.used += project.typical
        project.running += 1
        self.running += 1
        return project.typical

    def release(self, project: Project, charged: float, took: float) -> None:
        """Gives the slot back and settles the bill. A run as long as the hold halves the project's cap; a short one gives a place back."""
        project.used += took - charged
        project.typical += _SMOOTH * (max(took, _LEAST) - project.typical)
        project.running -= 1
        self.running -= 1
        if took >= self._limits.hold:
            project.cap = max(1, project.cap // 2)
        elif project.cap < self._limits.project_cap and took < self._limits.hold / 4:
            project.cap += 1
