"""Questions about the shape of project databases."""

from __future__ import annotations

from datetime import datetime

from aiohttp import web
from loquat_common.http import Api, Authenticate
from pydantic import BaseModel

from loquat_schema_manager.adapters.store import Store


class TemplateView(BaseModel):
    """A sealed template."""

    cluster: str
    database: str
    version: int
    sealed_at: datetime


class FailingView(BaseModel):
    """A database whose last attempt failed, and when the next one comes."""

    project_id: str
    cluster: str
    database: str
    version: int
    attempts: int
    reason: str
    next_at: datetime


class DatabasesView(BaseModel):
    """How far the sweep is."""

    total: int
    current: int
    behind: int


class SchemaView(BaseModel):
    """This release's version of the system schema, and where it is in force."""

    version: int
    templates: list[TemplateView]
    databases: DatabasesView
    failing: list[FailingView]


class SchemaApi:
    """The internal API of this service."""

    def __init__(self, store: Store, version: int, authenticate: Authenticate) -> None:
        self._store, self._version = store, version
        self.api = Api("Loquat schema-manager", "1", authenticate=authenticate)
        self.api.route("GET", "/internal/schema", self.schema, summary="Templates and the state of the sweep", scope="schema:read")

    async def schema(self, _request: web.Request) -> SchemaView:
        """Versions, templates, databases that are behind."""
        progress = await self._store.progress(self._version)
        return SchemaView(
            version=self._version,
            templates=[
                TemplateView(cluster=t.cluster, database=t.database, version=t.version, sealed_at=t.sealed_at)
                for t in await self._store.templates()
            ],
            databases=DatabasesView(total=progress.total, current=progress.total - progress.behind, behind=progress.behind),
            failing=[
                FailingView(
                    project_id=f.target.project_id,
                    cluster=f.target.cluster,
                    database=f.target.database,
                    version=f.version,
                    attempts=f.attempts,
                    reason=f.reason,
                    next_at=f.next_at,
                )
                for f in progress.failing
            ],
        )
