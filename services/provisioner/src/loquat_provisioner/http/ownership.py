"""A database that its owner owns: usage, limits, the direct connection."""

from __future__ import annotations

from dataclasses import asdict
from urllib.parse import quote

from aiohttp import web
from loquat_common.bounds import OutOfBounds
from loquat_common.http import ACTOR, Api
from loquat_common.problems import invalid, not_found
from loquat_events.projects import AccessChanged, LimitsChanged
from loquat_rest import ownership as shapes
from loquat_rest.operation import OneProject

from loquat_provisioner.adapters import access, limits
from loquat_provisioner.adapters.limits import LimitsStore
from loquat_provisioner.adapters.usage import Usage, usage
from loquat_provisioner.domain.life import LOGINS
from loquat_provisioner.domain.limits import LEAST, Limits, changed
from loquat_provisioner.http.places import BELOW, Places, Sayings, answering


class Ownership:
    """What an owner sees and sets of the whole database. `most` bounds the limits that can be chosen here."""

    def __init__(self, places: Places, chosen: LimitsStore, most: Limits, sayings: Sayings) -> None:
        self._places, self._chosen, self._most, self._sayings = places, chosen, most, sayings

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.USAGE, self.usage, below=BELOW)
        api.serve(shapes.LIMITS, self.limits, below=BELOW)
        api.serve(shapes.CHANGE_LIMITS, self.change_limits, below=BELOW)
        api.serve(shapes.ACCESS, self.access, below=BELOW)
        api.serve(shapes.GRANT, self.grant, below=BELOW)
        api.serve(shapes.REVOKE, self.revoke, below=BELOW)

    async def usage(self, _request: web.Request, *, path: OneProject) -> shapes.Usage:
        """As it is now; rows are estimates."""
        project, names, databases = await self._places.of(path.project_id)
        with answering():
            found = await usage(databases, names)
        if found is None:
            raise not_found("database")
        return _usage(found, await self._chosen.get(project.project_id))

    async def limits(self, _request: web.Request, *, path: OneProject) -> shapes.LimitsView:
        """In force, or chosen and in force as soon as the cluster answers."""
        project, _, _ = await self._places.of(path.project_id)
        return self._view(await self._chosen.get(project.project_id))

    async def change_limits(self, request: web.Request, *, path: OneProject, body: shapes.LimitsChange) -> shapes.LimitsView:
        """Kept first, then put in force: a cluster that is away gets them when it is back."""
        project, names, databases = await self._places.of(path.project_id)
        before = await self._chosen.get(project.project_id)
        try:
            after = changed(before, body.model_dump(exclude_none=True), self._most)
        except OutOfBounds as error:
            raise invalid(f"body.{error.field}", str(error)) from None
        await self._chosen.choose(project.project_id, after)
        with answering():
            await limits.enforce(databases, names, after)
        await self._chosen.applied(project.project_id, after)
        await self._sayings.say(
            LimitsChanged(
                project_id=project.project_id,
                size_bytes=after.size_bytes,
                connections={kind: after.connections(kind) for kind in LOGINS},
                statement_seconds=after.statement_seconds,
                transaction_seconds=after.transaction_seconds,
                actor=request[ACTOR].subject,
                at=self._sayings.now(),
            ),
            project.project_id,
        )
        return self._view(after)

    async def access(self, _request: web.Request, *, path: OneProject) -> shapes.Access:
        """Whether there is one."""
        project, names, databases = await self._places.of(path.project_id)
        with answering():
            since = await access.since(databases, names)
        if since is None:
            return shapes.Access(exists=False)
        host, port = self._places.shown(project.cluster or "")
        return shapes.Access(exists=True, host=host, port=port, database=names.database, user=names.login("direct"), since=since)

    async def grant(self, request: web.Request, *, path: OneProject) -> shapes.NewAccess:
        """The password is in this answer and nowhere else."""
        project, names, databases = await self._places.of(path.project_id)
        with answering():
            granted = await access.grant(databases, names)
        if granted is None:
            raise not_found("database")
        password, since = granted
        await self._said(request, project.project_id, open_=True)
        host, port = self._places.shown(project.cluster or "")
        user = names.login("direct")
        where = f"[{host}]" if ":" in host else host
        url = f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@{where}:{port}/{quote(names.database, safe='')}"
        return shapes.NewAccess(url=url, host=host, port=port, database=names.database, user=user, password=password, since=since)

    async def revoke(self, request: web.Request, *, path: OneProject) -> None:
        """Harmless when there is none."""
        project, names, databases = await self._places.of(path.project_id)
        with answering():
            await access.revoke(databases, names)
        await self._said(request, project.project_id, open_=False)

    async def _said(self, request: web.Request, project: str, *, open_: bool) -> None:
        said = AccessChanged(project_id=project, open=open_, actor=request[ACTOR].subject, at=self._sayings.now())
        await self._sayings.say(said, project)

    def _view(self, limits: Limits) -> shapes.LimitsView:
        return shapes.LimitsView(limits=_shape(limits), most=_shape(self._most), least=_shape(LEAST))


def _shape(limits: Limits) -> shapes.Limits:
    return shapes.Limits(**asdict(limits))


def _usage(found: Usage, limits: Limits) -> shapes.Usage:
    return shapes.Usage(
        size_bytes=found.size,
        size_share=round(found.size / limits.size_bytes, 4),
        closed_for_size=found.closed_for_size,
        rows_estimate=found.rows,
        tables=[shapes.TableUsage(name=t.name, rows_estimate=t.rows, size_bytes=t.size, system=t.system) for t in found.tables],
        logins=[
            shapes.LoginUsage(login=kind, connections=open_, limit=limit, share=round(open_ / max(limit, 1), 4))
            for kind, (open_, limit) in found.logins.items()
        ],
        limits=_shape(limits),
    )
