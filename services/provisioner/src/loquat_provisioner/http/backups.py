"""Backups, restores and clones: ordered by topic, shown from the rows."""

from __future__ import annotations

import hashlib
from typing import Final
from uuid import UUID, uuid4

from aiohttp import web
from loquat_common.http import ACTOR, Api, idempotency_key
from loquat_common.problems import Problem, not_found
from loquat_events.ids import order_id
from loquat_events.projects import DropBackup, RestoreBackup, TakeBackup
from loquat_rest import ownership as shapes
from loquat_rest.operation import OneProject

from loquat_provisioner.adapters.backups import Backup, BackupStore, Restore
from loquat_provisioner.adapters.reservations import Kind, Reservations
from loquat_provisioner.http.places import BELOW, Places, Sayings

_SHOWN: Final = 100


class Keeping:
    """The resources `backups`, `restores` and `clone`. `most` backups of a project are kept."""

    def __init__(self, places: Places, backups: BackupStore, reservations: Reservations, sayings: Sayings, most: int) -> None:
        self._places, self._backups, self._reservations, self._sayings, self._most = places, backups, reservations, sayings, most

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.BACKUPS, self.list, below=BELOW)
        api.serve(shapes.TAKE, self.take, below=BELOW)
        api.serve(shapes.BACKUP, self.get, below=BELOW)
        api.serve(shapes.DROP, self.drop, below=BELOW)
        api.serve(shapes.RESTORE, self.restore, below=BELOW)
        api.serve(shapes.RESTORES, self.restores, below=BELOW)
        api.serve(shapes.CLONE, self.clone, below=BELOW)

    async def list(self, _request: web.Request, *, path: OneProject) -> shapes.BackupList:
        """Also while the project is closed for one."""
        project = await self._places.known(path.project_id)
        found = await self._backups.of_project(project.project_id, _SHOWN)
        return shapes.BackupList(items=[_backup(b) for b in found if b.clone_id is None], most=self._most)

    async def get(self, _request: web.Request, *, path: shapes.OneBackup) -> shapes.Backup:
        """One."""
        return _backup(await self._one(path.project_id, path.backup_id))

    async def take(self, request: web.Request, *, path: OneProject, body: shapes.NewBackup) -> shapes.Backup:
        """The order is durable first; then its row is there, so that the caller sees it at once."""
        project, _, _ = await self._places.of(path.project_id)
        order = TakeBackup(
            project_id=project.project_id,
            backup_id=_key(request, project.project_id, "backup"),
            note=body.note,
            ordered_by=request[ACTOR].subject,
        )
        await self._ordered(order, order.backup_id, "backup")
        return _backup(await self._backups.accept(order))

    async def drop(self, request: web.Request, *, path: shapes.OneBackup) -> shapes.Backup:
        """Harmless when it is gone already."""
        await self._places.of(path.project_id)
        backup = await self._one(path.project_id, path.backup_id)
        if backup.state == "taking":
            raise Problem(409, "backup_not_kept", "The backup is being made", "It can be forgotten when it is kept")
        order = DropBackup(project_id=path.project_id, backup_id=path.backup_id, ordered_by=request[ACTOR].subject)
        await self._sayings.say(order, path.project_id, lane="project")
        return _backup(backup)

    async def restore(self, request: web.Request, *, path: shapes.OneBackup) -> shapes.Restore:
        """The order; `GET .../restores` shows how far it is. One that was ordered before is answered as it stands, whatever became of its backup."""
        await self._places.known(path.project_id)
        restore_id = _key(request, path.project_id, f"restore {path.backup_id}")
        if (known := await self._backups.restore(path.project_id, restore_id)) is not None:
            return _restore(known)
        await self._places.of(path.project_id)
        backup = await self._one(path.project_id, path.backup_id)
        if backup.state != "kept":
            raise Problem(409, "backup_not_kept", "The backup cannot be restored", f"It is {backup.state}")
        order = RestoreBackup(
            project_id=path.project_id,
            restore_id=restore_id,
            backup_id=backup.backup_id,
            ordered_by=request[ACTOR].subject,
        )
        await self._ordered(order, order.restore_id, "restore")
        return shapes.Restore(
            id=order.restore_id,
            backup_id=backup.backup_id,
            state="running",
            epoch=None,
            reason=None,
            ordered_by=order.ordered_by,
            ordered_at=self._sayings.now(),
            ended_at=None,
        )

    async def restores(self, _request: web.Request, *, path: OneProject) -> shapes.RestoreList:
        """What became of them."""
        project = await self._places.known(path.project_id)
        return shapes.RestoreList(items=[_restore(r) for r in await self._backups.restores(project.project_id, _SHOWN)])

    async def clone(self, request: web.Request, *, path: OneProject, body: shapes.NewClone) -> shapes.CloneOrdered:
        """The copy is taken in the project's own order of things; the new project is made of it."""
        project, _, _ = await self._places.of(path.project_id)
        backup = _key(request, project.project_id, "clone")
        made = "prj_" + hashlib.sha256(backup.bytes).hexdigest()[:16]
        order = TakeBackup(
            project_id=project.project_id, backup_id=backup, clone_id=made, clone_name=body.name, ordered_by=request[ACTOR].subject
        )
        await self._ordered(order, backup, "clone")
        return shapes.CloneOrdered(project_id=made)

    async def _ordered(self, order: TakeBackup | RestoreBackup, order_id: UUID, kind: Kind) -> None:
        """Reserved, then said.

        Raises:
            Problem: 409 while another one is under way, 503 when it is not known to be said.
        """
        if (other := await self._reservations.reserve(order.project_id, order_id, kind)) is not None:
            detail = f"The {other.kind} {other.order_id} is under way; one at a time is the limit, wait for its end"
            raise Problem(409, "busy", "Another order about the whole database is under way", detail)
        try:
            await self._sayings.say(order, order.project_id, lane="project", key=order_id)
        except Problem:
            await self._reservations.release(order_id)
            raise

    async def _one(self, project: str, backup: UUID) -> Backup:
        await self._places.known(project)
        found = await self._backups.get(project, backup)
        if found is None or found.clone_id is not None:
            raise not_found("backup")
        return found


def _key(request: web.Request, project: str, what: str) -> UUID:
    """The id of an order: the same for the same Idempotency-Key.

    Raises:
        Problem: 422 when the key is empty or too long.
    """
    key = idempotency_key(request)
    return order_id(project, f"{what} {key}") if key is not None else uuid4()


def _backup(backup: Backup) -> shapes.Backup:
    return shapes.Backup(
        id=backup.backup_id,
        state=backup.state,
        note=backup.note,
        size_bytes=backup.size_bytes,
        reason=backup.reason,
        ordered_by=backup.ordered_by,
        ordered_at=backup.ordered_at,
        ended_at=backup.ended_at,
    )


def _restore(restore: Restore) -> shapes.Restore:
    return shapes.Restore(
        id=restore.restore_id,
        backup_id=restore.backup_id,
        state=restore.state,
        epoch=restore.epoch,
        reason=restore.reason,
        ordered_by=restore.ordered_by,
        ordered_at=restore.ordered_at,
        ended_at=restore.ended_at,
    )
