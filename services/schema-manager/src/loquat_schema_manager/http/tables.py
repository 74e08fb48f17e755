"""Tables as they are."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from loquat_common.http import Api
from loquat_rest import tables as shapes
from loquat_rest.operation import OneProject

from loquat_schema_manager.adapters.editors import Editors, Session

BELOW: Final = "/internal/projects/{project_id}"
_LOOK: Final = Session(statement_ms=5_000, read_only=True)


class Tables:
    """What tables there are and what they look like."""

    def __init__(self, editors: Editors) -> None:
        self._editors = editors

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.LIST, self.list, below=BELOW)

    async def list(self, _request: web.Request, *, path: OneProject) -> shapes.TableList:
        """Every table and view of schema public."""
        async with self._editors.session(path.project_id, _LOOK) as editor:
            rows = await editor.fetch(
                "SELECT relname FROM pg_catalog.pg_class WHERE relnamespace = 'public'::pg_catalog.regnamespace"
                " AND relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY relname"
            )
        return shapes.TableList(items=[shapes.TableName(name=r["relname"]) for r in rows])
