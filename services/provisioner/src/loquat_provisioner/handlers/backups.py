"""Orders to keep a point of a project's database, and to go back to one. Each may come again, and may have been cut off anywhere.

While its files are copied a database is closed. That is told first: the directory says `creating`, so services put events off without
counting an attempt, and whatever a bot or a person is in the middle of may end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from loquat_common.bus.port import Bus, Dead, Done, Outcome, Received, Retry
from loquat_common.failpoints import Failpoints
from loquat_events.envelope import AnyEvent
from loquat_events.projects import BackupChanged, CreateProject, DropBackup, ProjectRestored, RestoreBackup, TakeBackup

from loquat_provisioner.adapters import copies
from loquat_provisioner.adapters.backups import Backup, BackupStore, Restore
from loquat_provisioner.adapters.databases import ClusterRefused, ProjectDatabases
from loquat_provisioner.adapters.store import Project, Store
from loquat_provisioner.domain.life import TRIES, Names, StepFailed
from loquat_provisioner.handlers.facts import Facts


class Backups:
    """Part of the handler of `projects.commands.v1`. `kept`: backups of a project that stay; `patience`: seconds until a busy one is shut."""

    def __init__(
        self,
        store: Store,
        backups: BackupStore,
        clusters: Mapping[str, ProjectDatabases],
        bus: Bus,
        failpoints: Failpoints,
        facts: Facts,
        *,
        kept: int = 5,
        patience: float = 10.0,
    ) -> None:
        self._store, self._backups, self._clusters = store, backups, clusters
        self._bus, self._failpoints, self._facts = bus, failpoints, facts
        self._kept, self._patience = kept, patience

    async def handle(self, received: Received) -> Outcome:
        """One order."""
        match received.event.data:
            case TakeBackup() as order:
                return await self._take(order, received)
            case RestoreBackup() as order:
                return await self._restore(order, received)
            case DropBackup() as order:
                return await self._drop(order)
            case _:
                return Dead(f"{received.event.type} is no order about backups")

    # -- take

    async def _take(self, order: TakeBackup, received: Received) -> Outcome:
        """Closed, copied, open again."""
        project = await self._store.get(order.project_id)
        if project is None:
            return Done()
        backup = await self._backups.accept(order)
        clone = self._clone(order, project)
        if backup.state != "taking":
            return Done(self._told(backup, order.ordered_by, clone))
        if clone is not None:
            await self._bus.publish(self._facts.listed(await self._store.accept(clone)))
        if (why := self._unfit(project)) is not None:
            return await self._not_taken(backup, order, why)
        try:
            await self._copied(project, backup)
        except (StepFailed, ClusterRefused) as error:
            await self._opened(project)
            if received.attempts + 1 < TRIES:
                return Retry(2.0**received.attempts, _why(error))
            await copies.drop(self._place(project)[1], backup.database)  # it may have been made
            return await self._not_taken(backup, order, _why(error))
        backup = await self._backups.end(backup.backup_id, "kept")
        gone = await self._retire(project)
        return Done((*self._told(backup, order.ordered_by, clone), *gone))

    async def _copied(self, project: Project, backup: Backup) -> None:
        names, databases = self._place(project)
        await self._shut(project, "backup")
        size = await copies.copy(databases, names.database, backup.database)
        self._failpoints.hit("provisioner.backup.copied")
        await self._backups.measure(backup.backup_id, size)
        await self._opened(project)
        self._failpoints.hit("provisioner.backup.opened")

    async def _not_taken(self, backup: Backup, order: TakeBackup, why: str) -> Outcome:
        said = self._told(await self._backups.end(backup.backup_id, "failed", why), order.ordered_by, None)
        if order.clone_id is None:
            return Done(said)
        failed = await self._store.state(order.clone_id, "failed", f"the copy of {order.project_id}: {why}")
        return Done((*said, self._facts.listed(failed)))

    async def _retire(self, project: Project) -> list[AnyEvent]:
        """The oldest go."""
        said: list[AnyEvent] = []
        for backup in await self._backups.beyond(project.project_id, self._kept):
            said += await self._dropped(project, backup, "retention")
        return said

    # -- drop

    async def _drop(self, order: DropBackup) -> Outcome:
        """It is gone."""
        project, backup = await self._store.get(order.project_id), await self._backups.get(order.project_id, order.backup_id)
        if project is None or backup is None or backup.state == "taking":
            return Done()
        return Done(tuple(await self._dropped(project, backup, order.ordered_by)))

    async def _dropped(self, project: Project, backup: Backup, actor: str) -> tuple[AnyEvent, ...]:
        _, databases = self._place(project)
        await copies.drop(databases, backup.database)
        self._failpoints.hit("provisioner.backup.dropped")
        return self._told(await self._backups.end(backup.backup_id, "dropped"), actor, None)

    # -- restore

    async def _restore(self, order: RestoreBackup, received: Received) -> Outcome:
        """A copy of the backup takes the project's place, under its name and with its roles. What is there now stays until that is done."""
        project, backup = await self._store.get(order.project_id), await self._backups.get(order.project_id, order.backup_id)
        if project is None:
            return Done()
        if backup is None:
            return Dead("the project has no such backup")
        restore = await self._backups.accept_restore(order)
        if restore.state != "running":
            return Done((self._restored(restore),))
        why = self._unfit(project) or (None if backup.state == "kept" else f"the backup is {backup.state}")
        if why is not None:
            return Done((self._restored(await self._backups.end_restore(restore.restore_id, "failed", why)),))
        try:
            project = await self._replaced(project, backup, restore)
        except (StepFailed, ClusterRefused) as error:
            return await self._not_restored(project, restore, received.attempts, _why(error))
        return Done((self._restored(await self._backups.end_restore(restore.restore_id, "done")),))

    async def _replaced(self, project: Project, backup: Backup, restore: Restore) -> Project:
        names, databases = self._place(project)
        if project.epoch < restore.epoch:
            await self._shut(project, "restore")
            if not await copies.there(databases, restore.old):  # else it has taken its place before
                await copies.copy(databases, backup.database, restore.fresh)
                self._failpoints.hit("provisioner.restore.copied")
                await copies.renew(databases, restore.fresh, project.project_id, restore.epoch, names)
                self._failpoints.hit("provisioner.restore.renewed")
                await copies.swap(databases, names, restore.fresh, restore.old)
            self._failpoints.hit("provisioner.restore.swapped")
            project = await self._store.epoch(project.project_id, restore.epoch)
        self._failpoints.hit("provisioner.restore.raised")
        await databases.let_in(names)
        await self._opened(project)
        self._failpoints.hit("provisioner.restore.opened")
        await copies.drop(databases, restore.fresh, restore.old)
        return project

    async def _not_restored(self, project: Project, restore: Restore, attempts: int, why: str) -> Outcome:
        """As it was before, if the copy has not taken its place; else only forward."""
        _, databases = self._place(project)
        current = await self._store.get(project.project_id)
        swapped = current is None or current.epoch >= restore.epoch or await copies.there(databases, restore.old)
        if swapped:
            return Retry(2.0 ** min(attempts, TRIES), why)
        await self._opened(project)
        if attempts + 1 < TRIES:
            return Retry(2.0**attempts, why)
        await copies.drop(databases, restore.fresh)
        return Done((self._restored(await self._backups.end_restore(restore.restore_id, "failed", why)),))

    # -- both

    async def _shut(self, project: Project, what: str) -> None:
        names, databases = self._place(project)
        await self._bus.publish(self._facts.listed(replace(project, state="creating")))
        self._failpoints.hit(f"provisioner.{what}.told")
        await copies.close(databases, names, self._patience)
        self._failpoints.hit(f"provisioner.{what}.shut")

    async def _opened(self, project: Project) -> None:
        names, databases = self._place(project)
        await copies.reopen(databases, names)
        await self._bus.publish(self._facts.listed(project))

    def _unfit(self, project: Project) -> str | None:
        if project.state != "ready":
            return f"the project is {project.state}"
        return None if project.cluster in self._clusters else f"the cluster {project.cluster} is not set up any more"

    def _place(self, project: Project) -> tuple[Names, ProjectDatabases]:
        if project.cluster is None or project.database is None:
            raise StepFailed("the project has no place")
        return Names(project.database), self._clusters[project.cluster]

    def _clone(self, order: TakeBackup, project: Project) -> CreateProject | None:
        if order.clone_id is None:
            return None
        return CreateProject(
            project_id=order.clone_id,
            organization_id=project.organization_id,
            name=order.clone_name or project.name,
            ordered_by=order.ordered_by,
            origin=order.backup_id,
        )

    def _told(self, backup: Backup, actor: str, clone: CreateProject | None) -> tuple[AnyEvent, ...]:
        """The copy of a clone is no backup of anybody's: its fact is the new project."""
        if backup.clone_id is not None:
            made = clone is not None and backup.state == "kept"
            return (self._facts.of(clone, clone.project_id, "create"),) if made and clone is not None else ()
        if backup.state == "taking":
            return ()
        data = BackupChanged(
            project_id=backup.project_id,
            backup_id=backup.backup_id,
            state=backup.state,
            reason=backup.reason,
            actor=actor,
            at=backup.ended_at or self._facts.now(),
        )
        return (self._facts.of(data, backup.project_id, f"backup {backup.backup_id} {backup.state}"),)

    def _restored(self, restore: Restore) -> AnyEvent:
        data = ProjectRestored(
            project_id=restore.project_id,
            restore_id=restore.restore_id,
            backup_id=restore.backup_id,
            state="done" if restore.state == "done" else "failed",
            epoch=restore.epoch,
            reason=restore.reason,
            actor=restore.ordered_by,
            at=restore.ended_at or self._facts.now(),
        )
        return self._facts.of(data, restore.project_id, f"restored {restore.restore_id} {restore.state}")


def _why(error: StepFailed | ClusterRefused) -> str:
    return str(error) if isinstance(error, StepFailed) else f"the tenant cluster refused: {type(error).__name__} {error.sqlstate}"
