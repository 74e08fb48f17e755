"""A dump that its owner uploads, restored into a project that is new: the owner's own objects alone."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from aiohttp import web
from loquat_common.http import Api
from loquat_common.problems import Problem
from loquat_rest import ownership as shapes
from loquat_rest.operation import OneProject

from loquat_provisioner.adapters.databases import ProjectDatabases
from loquat_provisioner.adapters.dumps import NoProgram, ProgramFailed, Programs, environment
from loquat_provisioner.adapters.errands import errand
from loquat_provisioner.adapters.limits import LimitsStore
from loquat_provisioner.adapters.uploads import Contents, NotADump, TooLarge, contents, is_new, keep, restore
from loquat_provisioner.domain.life import Names
from loquat_provisioner.http.dumps import Turns
from loquat_provisioner.http.pace import Pace, paced
from loquat_provisioner.http.places import BELOW, Places, answering

_PIECE: Final = 64 << 10  # bytes
_RECEIPTS: Final = 16
"""Archives that are received at once: each is on disk, one per project."""
_NOT_A_DUMP: Final = (422, "not_a_dump", "The body is no dump", "It must be one of `pg_dump --format=custom`, of PostgreSQL 18 at most")


class Uploads:
    """The resource `restore`."""

    def __init__(self, places: Places, chosen: LimitsStore, programs: Programs, turns: Turns, pace: Pace) -> None:
        self._places, self._chosen, self._programs, self._turns, self._pace = places, chosen, programs, turns, pace
        self._receipts = Turns(_RECEIPTS)

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.UPLOAD, self.restore, below=BELOW)

    async def restore(self, request: web.Request, *, path: OneProject) -> shapes.Restored:
        """The archive is kept on disk until it is restored, all or nothing. The turn is taken once it has come: who sends slowly holds none."""
        project, names, databases = await self._places.of(path.project_id)
        most = (await self._chosen.get(project.project_id)).size_bytes
        who = project.project_id, project.organization_id
        async with self._receipts.turn(*who):
            await _new(databases, names)
            with TemporaryDirectory(prefix="loquat-upload-") as folder:
                archive = Path(folder) / "archive"
                await self._received(request, archive, most)
                async with self._turns.turn(*who, patience=self._pace.patience):
                    found = await self._contents(archive)
                    if found.chosen:
                        await _new(databases, names)  # minutes may have gone by
                        address = self._places.address(project.cluster or "")
                        with answering():
                            async with errand(databases, names, "restore") as visitor:
                                await self._restored(environment(address.host, address.port, visitor), archive, found)
        return shapes.Restored(objects=len(found.chosen), tables=found.tables, left_out=found.left_out)

    async def _received(self, request: web.Request, archive: Path, most: int) -> None:
        try:
            await keep(paced(request.content.iter_chunked(_PIECE), self._pace), archive, most)
        except NotADump:
            raise Problem(*_NOT_A_DUMP) from None
        except TooLarge:
            raise Problem(413, "too_large", "The dump is larger than the project may become", f"{most} bytes are the limit") from None
        except TimeoutError:
            slow = f"{self._pace.rate} bytes a second, {self._pace.silence:g} seconds of silence and {self._pace.longest:g} in all are the limits"
            raise Problem(408, "too_slow", "The body did not arrive in time", slow) from None

    async def _contents(self, archive: Path) -> Contents:
        try:
            return await contents(self._programs, archive)
        except NotADump:
            raise Problem(*_NOT_A_DUMP) from None
        except NoProgram as failure:
            raise Problem(503, "not_set_up", "Restores are not set up here", str(failure)) from None

    async def _restored(self, given: dict[str, str], archive: Path, found: Contents) -> None:
        try:
            await restore(self._programs, given, archive, found)
        except ProgramFailed as failure:
            raise Problem(422, "restore_failed", "The dump could not be restored; nothing of it was kept", str(failure)) from None


async def _new(databases: ProjectDatabases, names: Names) -> None:
    with answering():
        if not await is_new(databases, names):
            detail = "It has tables, functions or types of its own; drop them, or make another project"
            raise Problem(409, "not_empty", "The project is not new", detail)
