"""Sessions as a project's own editor: whatever touches a tenant's tables, triggers, casts or expressions runs as the tenant, never as us.

A connection is logged in as the editor (architecture, "Databases"): a `SET ROLE` from a service's login could be undone by a tenant's trigger.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_common.client import InternalClient, ServiceUnavailable
from loquat_common.db import CONNECT_LIMIT, GONE, DatabaseAway, Dial, Place, ProjectPools, is_gone
from loquat_common.directory import Directory
from loquat_common.problems import Problem, not_found

from loquat_schema_manager.adapters.refusals import lives
from loquat_schema_manager.domain.fragments import Text

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_COMMAND_LIMIT: Final = 90.0
"""Seconds for one command of any kind; the server's own limits, which each session sets, come first."""


@dataclass(frozen=True, slots=True)
class Session:
    """How long one request may hold things up. Milliseconds."""

    statement_ms: int = 10_000
    lock_ms: int = 2_000
    read_only: bool = False


def as_editor(provisioner: InternalClient) -> Dial:
    """Connections logged in as the project's editor, with the password that the provisioner keeps."""

    async def dial(place: Place) -> Connection:
        path = f"/internal/projects/{place.project}/credentials/editor"
        try:
            given = await provisioner.call("GET", path, actor=provisioner.itself("credentials:read"))
        except ServiceUnavailable as error:
            raise DatabaseAway("the provisioner does not answer") from error
        if given["database"] != place.database:
            raise DatabaseAway("the directory is out of date")
        try:
            return await asyncpg.connect(
                host=given["host"],
                port=given["port"],
                database=given["database"],
                user=given["user"],
                password=given["password"],
                timeout=CONNECT_LIMIT,
                command_timeout=_COMMAND_LIMIT,
                statement_cache_size=0,  # DISCARD ALL takes prepared statements away
                server_settings={"application_name": "loquat_schema_manager"},
            )
        except GONE as error:
            raise DatabaseAway(type(error).__name__) from error

    return dial


class Editors:
    """Sessions of requests on projects' databases. `pools` dials with `as_editor`."""

    def __init__(self, directory: Directory, pools: ProjectPools) -> None:
        self._directory, self._pools = directory, pools

    def place(self, project: str) -> Place:
        """Where its database is.

        Raises:
            Problem: 404 when there is none, 409 when it is not ready.
        """
        listed = self._directory.get(project)
        if listed is None or listed.state in {"deleting", "deleted"}:
            raise not_found("project")
        if listed.state != "ready" or listed.cluster is None or listed.database is None:
            raise Problem(409, "project_not_ready", "The project is not ready", f"It is {listed.state}")
        return Place(project, listed.cluster, listed.database, listed.epoch)

    @asynccontextmanager
    async def session(self, project: str, limits: Session | None = None, actor: str = "") -> AsyncGenerator[Connection]:
        """A connection of the project's editor, with no transaction open, fresh: whatever a trigger set in it before is gone.

        `actor` stands in the setting `loquat.actor`, for the history of rows; the tenant may set it to anything.

        Raises:
            Problem: 404, 409 as `place`; 503 when the cluster does not answer.
        """
        place, limits = self.place(project), limits or Session()
        try:
            async with self._pools.acquire(place.cluster, place.database, project=project, epoch=place.epoch) as connection:
                try:
                    await connection.execute(_settings(limits, actor))
                    yield connection
                finally:
                    await _refresh(connection)
        except DatabaseAway:
            raise Problem(503, "database_away", "The project's database does not answer", "Try again") from None


@asynccontextmanager
async def committed(connection: Connection) -> AsyncGenerator[None]:
    """A transaction. Whoever hears that the database is away tries again, so that is said only while nothing can have been changed.

    Raises:
        Problem: 503 `outcome_unknown`: the commit was sent and no answer came.
    """
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    except BaseException:
        await transaction.rollback()
        raise
    try:
        await transaction.commit()
    except GONE as error:
        if isinstance(error, asyncpg.PostgresError) and lives(error):
            raise  # the server's own no: nothing was changed
        connection.terminate()
        raise Problem(503, "outcome_unknown", "The change may have taken effect", "Look whether it did before it is tried again") from None


def _settings(limits: Session, actor: str) -> str:
    """As one simple query: with parameters it would be two round trips for each request."""
    read_only = "on" if limits.read_only else "off"
    return (
        f"SET statement_timeout = {limits.statement_ms:d}; SET lock_timeout = {limits.lock_ms:d};"
        f" SET default_transaction_read_only = {read_only}; SET search_path = pg_catalog, public, pg_temp; SET loquat.actor = {Text(actor)}"
    )


async def _refresh(connection: Connection) -> None:
    """Leaves nothing of this request to the next one; a connection that cannot be cleaned is not used again."""
    if connection.is_closed():
        return
    if connection.is_in_transaction():
        connection.terminate()
        return
    try:
        await connection.execute("DISCARD ALL", timeout=2)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        connection.terminate()
        if not is_gone(error) and not isinstance(error, asyncpg.PostgresError):
            raise
