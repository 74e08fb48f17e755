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
from loquat_provisioner.http.pace import Pace
from loquat_provisioner.http.places import BELOW, Places, answering

_LOOK: Final = 1.0  # seconds between two looks whether anybody still listens
_KINDS: Final[dict[Form, tuple[str, str]]] = {"custom": ("application/octet-stream", "dump"), "plain": ("application/sql", "sql")}


class Turns:
    """How many work at once: `most` here, at most half of them (one, if there is one) of an organization, one per project."""

    def __init__(self, most: int) -> None:
        self._most, self._share = most, (most + 1) // 2
        self._busy: dict[str, str] = {}  # organizations by project
        self._freed = asyncio.Condition()
        self._waiting = 0

    async def wanted(self) -> bool:
        """Whether somebody waits for a turn."""
        return self._waiting > 0

    @asynccontextmanager
    async def turn(self, project: str, organization: str, *, patience: float = 0.0) -> AsyncGenerator[None]:
        """A turn for as long as the block lasts, after `patience` seconds at most.

        Raises:
            Problem: 429 when there is none.
        """
        if patience > 0:
            await self._wait(project, organization, patience)
        if (why := self._refusal(project, organization)) is not None:
            raise why
        self._busy[project] = organization
        try:
            yield
        finally:
            del self._busy[project]
            async with self._freed:
                self._freed.notify_all()

    async def _wait(self, project: str, organization: str, patience: float) -> None:
        self._waiting += 1
        try:
            async with asyncio.timeout(patience), self._freed:
                await self._freed.wait_for(lambda: self._refusal(project, organization) is None)
        except TimeoutError:
            return  # the refusal says why
        finally:
            self._waiting -= 1

    def _refusal(self, project: str, organization: str) -> Problem | None:
        if project in self._busy:
            return Problem(429, "busy", "A dump or restore of this project is running", "One at a time is the limit; wait for its end")
        most, why = self._most, "Too many dumps and restores are running"
        if list(self._busy.values()).count(organization) >= self._share:
            most, why = self._share, "Too many dumps and restores of this organization are running"
        elif len(self._busy) < self._most:
            return None
        return Problem(429, "busy", why, f"{most} at a time are the limit; try again")


class Dumps:
    """The resource `dump`."""

    def __init__(self, places: Places, programs: Programs, turns: Turns, pace: Pace) -> None:
        self._places, self._programs, self._turns, self._pace = places, programs, turns, pace

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.DUMP, self.dump, below=BELOW)

    async def dump(self, request: web.Request, *, path: OneProject, query: shapes.DumpQuery) -> web.StreamResponse:
        """Nothing is answered before the first bytes are there: what fails until then is a problem like any other."""
        project, names, databases = await self._places.of(path.project_id)
        async with self._turns.turn(project.project_id, project.organization_id):
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
            async with asyncio.timeout(self._pace.longest):
                await self._write(response, first)
                while piece := await _while_heard(request, running):
                    await self._write(response, piece)
                await response.write_eof()
        except (ProgramFailed, TimeoutError, ConnectionError) as failure:
            get_logger().warning("dump.cut_off", error=type(failure).__name__)
            if request.transport is not None:
                request.transport.abort()  # no clean end: whoever reads sees that it is not whole
        return response

    async def _write(self, response: web.StreamResponse, piece: bytes) -> None:
        async with asyncio.timeout(self._pace.taken):
            await response.write(piece)


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
