"""Orders about projects. Every order may come again, and may have been cut off anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from loquat_common import metrics
from loquat_common.bus.port import Bus, Dead, Defer, Done, Outcome, Received, Retry
from loquat_common.crypto import SealBroken
from loquat_common.db import DatabaseAway, is_gone
from loquat_common.failpoints import Failpoints
from loquat_events.catalog import DIRECTORY
from loquat_events.envelope import AnyEvent
from loquat_events.projects import (
    CreateProject,
    DeleteProject,
    DropBackup,
    ProjectDeleted,
    ProjectFailed,
    ProjectReady,
    ProjectStepped,
    RestoreBackup,
    RetryProject,
    TakeBackup,
)

from loquat_provisioner.adapters import copies
from loquat_provisioner.adapters.backups import BackupStore
from loquat_provisioner.adapters.databases import ClusterRefused, ProjectDatabases
from loquat_provisioner.adapters.starter import StarterBot
from loquat_provisioner.adapters.store import Project, Store
from loquat_provisioner.domain.life import TRIES, Names, StepFailed, emptiest, missing
from loquat_provisioner.handlers.backups import Backups
from loquat_provisioner.handlers.facts import Facts


class Commands:
    """The handler of `projects.commands.v1`. Each step is recorded before and after; what is done is not done again."""

    def __init__(
        self,
        store: Store,
        clusters: Mapping[str, ProjectDatabases],
        starter: StarterBot,
        bus: Bus,
        failpoints: Failpoints,
        facts: Facts,
        backups: Backups,
        kept: BackupStore,
    ) -> None:
        self._store, self._clusters, self._starter = store, clusters, starter
        self._bus, self._failpoints, self._facts = bus, failpoints, facts
        self._backups, self._kept = backups, kept

    async def handle(self, received: Received) -> Outcome:
        """One order.

        Raises:
            DatabaseAway: the control database, or for a deletion the tenant cluster, does not answer: nobody's attempt.
        """
        try:
            return await self._handle(received)
        except Exception as error:
            if is_gone(error):
                raise DatabaseAway(type(error).__name__) from error
            raise

    async def _handle(self, received: Received) -> Outcome:
        match received.event.data:
            case CreateProject() as order:
                await self._store.accept(order)
                return await self._create(order.project_id)
            case RetryProject() as order:
                await self._store.retried(order.project_id)
                return await self._create(order.project_id, retry=True)
            case DeleteProject() as order:
                return await self._delete(order)
            case TakeBackup() | RestoreBackup() | DropBackup():
                return await self._backups.handle(received)
            case _:
                return Dead(f"{received.event.type} is no order about projects")

    # -- create

    async def _create(self, project_id: str, *, retry: bool = False) -> Outcome:
        project = await self._store.get(project_id)
        if project is None or project.state in {"deleting", "deleted"}:
            return Done()
        if project.state == "failed" and not retry:
            return await self._told(project)  # who wrote so may have died before it was said
        if project.state != "ready":
            project = await self._store.state(project_id, "creating")
            await self._bus.publish(self._facts.listed(project))
        steps = (await self._store.steps([project_id]))[project_id]
        for step in missing({s.name for s in steps if s.status == "done"}):
            attempts = next((s.attempts for s in steps if s.name == step), 0)
            if (failure := await self._try(project_id, step)) is not None:
                return await self._failed(project_id, step, failure, attempts + 1)
        await self._let_go(project_id)
        if project.state != "ready":  # whoever reads "ready" here can use it everywhere: the directory knows first
            placed = await self._store.get(project_id) or project
            await self._bus.publish(self._facts.listed(replace(placed, state="ready")))
        project = await self._store.state(project_id, "ready")
        stepped = [self._stepped(project_id, s.name) for s in (await self._store.steps([project_id]))[project_id]]
        ready = self._facts.of(ProjectReady(project_id=project_id, at=project.ready_at or self._facts.now()), project_id, "ready")
        return Done((*stepped, ready))

    async def _let_go(self, project_id: str) -> None:
        """The copy that it began as is of no more use."""
        project, _, databases = await self._placed(project_id)
        if project.origin is not None:
            await copies.drop(databases, project.origin)

    async def _try(self, project_id: str, step: str) -> str | None:
        """None if it succeeded, else the reason, for people."""
        await self._store.begin(project_id, step)
        self._failpoints.hit(f"provisioner.{step.replace(' ', '_')}.before")
        try:
            await self._do(project_id, step)
        except StepFailed as failure:
            reason = str(failure)
        except DatabaseAway:
            reason = "the tenant cluster does not answer"
        except SealBroken:
            reason = "the project's passwords do not open with this key ring"
        except ClusterRefused as error:
            if is_gone(error):
                raise
            reason = f"the tenant cluster refused: {type(error).__name__} {error.sqlstate}"
        else:
            self._failpoints.hit(f"provisioner.{step.replace(' ', '_')}.after")
            reason = None
        await self._store.end(project_id, step, reason)
        metrics.project_steps.labels(step, "done" if reason is None else "failed").inc()
        return reason

    async def _do(self, project_id: str, step: str) -> None:
        if step == "reserve":
            load = await self._store.load()
            await self._store.reserve(project_id, emptiest({c: load.get(c, 0) for c in self._clusters}))
            return
        if step == "starter bot":
            await self._starter.deploy(project_id)
            return
        project, names, databases = await self._placed(project_id)
        match step:
            case "database" if project.origin is not None:
                await copies.copy(databases, project.origin, names.database)
            case "database":
                await databases.clone(names)
            case "close":
                await databases.shut(names)
            case "open" if project.former is not None:
                former = Names(project.former)
                await copies.renew(databases, names.database, project_id, project.epoch, names, former)
                self._failpoints.hit("provisioner.open.renewed")
                await databases.open(names, project_id, project.epoch, name=project.name, organization=project.organization_id)
                self._failpoints.hit("provisioner.open.opened")
                await copies.inherit(databases, names, former)
            case "open":
                await databases.open(names, project_id, project.epoch, name=project.name, organization=project.organization_id)
            case _:
                await databases.logins(names, await self._store.passwords(project_id))

    async def _placed(self, project_id: str) -> tuple[Project, Names, ProjectDatabases]:
        project = await self._store.get(project_id)
        if project is None or project.cluster is None or project.database is None:
            raise StepFailed("the project has no place yet")
        if project.cluster not in self._clusters:
            raise StepFailed(f"the cluster {project.cluster} is not set up any more")
        return project, Names(project.database), self._clusters[project.cluster]

    async def _failed(self, project_id: str, step: str, reason: str, attempts: int) -> Outcome:
        if attempts < TRIES:
            return Retry(2.0 ** (attempts - 1), reason)
        project = await self._store.state(project_id, "failed", f"{step}: {reason}")
        return await self._told(project)

    async def _told(self, project: Project) -> Done:
        """What is to be said of a failed project: the same facts each time."""
        steps = (await self._store.steps([project.project_id]))[project.project_id]
        step = next(s for s in steps if s.status == "failed")
        at = step.ended_at or self._facts.now()
        failed = ProjectFailed(project_id=project.project_id, step=step.name, reason=step.reason or "", at=at)
        return Done((self._facts.listed(project), self._facts.of(failed, project.project_id, f"failed {step.name} {at.isoformat()}")))

    # -- delete

    async def _delete(self, order: DeleteProject) -> Outcome:
        project = await self._store.get(order.project_id)
        if project is None or project.state == "deleted":
            return Done()
        if project.state != "deleting":  # said before it is written: an order that comes again says it only if it is not written
            await self._bus.publish(self._facts.listed(replace(project, state="deleting")))
            project = await self._store.state(order.project_id, "deleting")
        left = await self._store.schedule_deletion(order.project_id, order.grace_seconds)
        if left > 0:
            return Defer(left, "the grace of a deletion")  # a deferred row is a durable timer
        if project.cluster is not None and project.database is not None:
            if project.cluster not in self._clusters:
                return Dead(f"the cluster {project.cluster} is not set up any more")
            self._failpoints.hit("provisioner.drop.before")
            await copies.drop(self._clusters[project.cluster], *await self._kept.copies(order.project_id))
            await self._clusters[project.cluster].drop(Names(project.database))
            self._failpoints.hit("provisioner.drop.after")
        await self._bus.remove(DIRECTORY, project=order.project_id, lane="project")
        await self._bus.publish(
            self._facts.of(ProjectDeleted(project_id=order.project_id, at=self._facts.now()), order.project_id, "deleted")
        )
        await self._store.forget(order.project_id)
        return Done()

    def _stepped(self, project: str, step: str) -> AnyEvent:
        return self._facts.of(ProjectStepped(project_id=project, step=step, status="done", at=self._facts.now()), project, f"step {step}")
