"""Names that a later migration needs and a tenant has taken.

They are renamed through the editor's own login: the system's role may not rename a tenant's objects, and must not act as a tenant.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_common.client import InternalClient
from loquat_common.db import CONNECT_LIMIT
from loquat_common.logs import get_logger
from loquat_common.sql import Ident, compose

from loquat_schema_manager.domain.shapes import Target

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

# purpose: what ends in __lq in public and is not the system's; one row per name (a table's row type has the table's name)
_SQUATTERS: Final = """
SELECT relname, relkind = 'c' AS is_type FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relname ~ '__lq$' AND relowner <> 'loquat_system'::regrole AND relkind <> 't'"""


class Squatters:
    """Asks the provisioner for the editor's login, only when there is something to rename."""

    def __init__(self, provisioner: InternalClient) -> None:
        self._provisioner, self._log = provisioner, get_logger()

    async def rename(self, target: Target, inside: Connection) -> int:
        """Renames what is in the way; how many."""
        found = await inside.fetch(_SQUATTERS)
        if not found:
            return 0
        editor = await self._editor(target)
        try:
            for row in found:
                new = Ident(f"squatter_{secrets.token_hex(6)}")
                names = {"old": Ident("public").dot(row["relname"]), "new": new}
                kind = "ALTER TYPE {old} RENAME TO {new}" if row["is_type"] else "ALTER TABLE {old} RENAME TO {new}"
                await editor.execute(compose(kind, **names))
                self._log.warning("sweep.squatter_renamed", database=target.database, old=row["relname"], new=new.name)
        finally:
            await editor.close(timeout=2)
        return len(found)

    async def _editor(self, target: Target) -> Connection:
        path = f"/internal/projects/{target.project_id}/credentials/editor"
        given = await self._provisioner.call("GET", path, actor=self._provisioner.itself("credentials:read"))
        return await asyncpg.connect(
            host=given["host"],
            port=given["port"],
            database=given["database"],
            user=given["user"],
            password=given["password"],
            timeout=CONNECT_LIMIT,
            command_timeout=10,
            statement_cache_size=0,
            server_settings={"default_transaction_read_only": "off"},  # a name must be free over the project's size, too
        )
