"""Dumps, streamed as pg_dump writes them: constant memory, few at a time, and an end that is none is seen to be none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from loquat_common.http import Api
from loquat_common.logs import get_logger
from loquat_common.problems import Problem
from loquat_rest import ownership as shapes
from loquat_rest.operation import OneProject

from loquat_provisioner.adapters.dumps import Dump, Form, NoProgram, ProgramFailed, Programs, dump, environment
from loquat_provisioner.adapters.errands import errand
from loquat_provisioner.http.places import BELOW, Places, answering

_LOOK: Final = 1.0  # seconds between two looks whether anybody still listens
_KINDS: Final[dict[Form, tuple[str, str]]] = {"custom": ("application/octet-stream", "dump"), "plain": ("application/sql", "sql")}


class Turns:
    """How many programs run at once: `most` here, one per project."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._busy: set[str] = set()

    @asynccontextmanager
    async def turn(self, project: str) -> AsyncGenerator[None]:
        """A turn for as long as the block lasts.

        Raises:
            Problem: 429 when there is none.
        """
        if project in self._busy:
            raise Problem(429, "busy", "A dump or restore of this project is running", "One at a time is the limit; wait for its end")
        if len(self._busy) >= self._most:
            raise Problem(429, "busy", "Too many dumps and restores are running", f"{self._most} at a time are the limit; try again")
        self._busy.add(project)
        try:
            yield
        finally:
            self._busy.discard(project)


class Dumps:
    """The resource `dump`."""

    def __init__(self, places: Places, programs: Programs, turns: Turns) -> None:
        self._places, self._programs, self._turns = places, programs, turns

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.DUMP, self.dump, below=BELOW)

    async def dump(self, request: web.Request, *, path: OneProject, query: shapes.DumpQuery) -> web.StreamResponse:
        """Nothing is answered before the first bytes are there: what fails until then is a problem like any other."""
        project, names, databases = await self._places.of(path.project_id)
        async with self._turns.turn(project.project_id):
            address = self._places.address(project.cluster or "")
            with answering():
                async with errand(databases, names, "dump") as visitor:
                    given = environment(address.host, address.port, visitor)
                    try:
                        async with dump(self._programs, given, query.format) as running:
                            return await self._stream(request, running, query.format, names.database)
                    except NoProgram as failure:
                        raise Problem(503, "not_set_up", "Dumps are not set up here", str(failure)) from None
                    except ProgramFailed as failure:
                        raise Problem(502, "dump_failed", "The dump failed", f"It failed because {failure}") from None

    async def _stream(self, request: web.Request, running: Dump, form: Form, name: str) -> web.StreamResponse:
        first = await running.piece()
        kind, ending = _KINDS[form]
        response = web.StreamResponse(
            headers={"Content-Type": kind, "Content-Disposition": f'attachment; filename="{name}.{ending}"', "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        try:
            async with asyncio.timeout(self._programs.silence):
                await response.write(first)
            while piece := await _while_heard(request, running):
                async with asyncio.timeout(self._programs.silence):
                    await response.write(piece)
            await response.write_eof()
        except (ProgramFailed, TimeoutError, ConnectionError) as failure:
            get_logger().warning("dump.cut_off", error=type(failure).__name__)
            if request.transport is not None:
                request.transport.abort()  # no clean end: whoever reads sees that it is not whole
        return response


async def _while_heard(request: web.Request, running: Dump) -> bytes:
    """The next piece, unless whoever asked has gone.

    Raises:
        ConnectionResetError: he has.
    """
    reading = asyncio.create_task(running.piece(), name="piece of a dump")
    try:
        while not reading.done():
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError
            await asyncio.wait([reading], timeout=_LOOK)
        return reading.result()
    finally:
        reading.cancel()
