"""The SQL console."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson
from aiohttp import web
from loquat_common.http import ACTOR, Api
from loquat_rest import console as shapes
from loquat_rest.operation import JSON, OneProject

from loquat_schema_manager.adapters.console import Console, Ran, Request
from loquat_schema_manager.adapters.wire import Result
from loquat_schema_manager.domain.script import line_of
from loquat_schema_manager.http.tables import BELOW

_AS_THEY_ARE: Final = frozenset({21, 23, 114, 3802})
"""OIDs of smallint, integer, json and jsonb: their text is JSON, and no digit of it is lost on the way."""
_BOOLEAN: Final = 16
_MOMENT: Final = 1184
_WRITTEN: Final = re.compile(rb"(\d{4,}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?)([+-]\d\d)(:\d\d(?::\d\d)?)?")
"""A timestamp with zone as Postgres writes it, unless the script asked for another style."""


class Sql:
    """Scripts of the project's owner."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.RUN, self.run, below=BELOW)

    async def run(self, request: web.Request, *, path: OneProject, body: shapes.Script) -> web.Response:
        """Runs it. The answer is written here: a document of the tenant's may nest deeper than a model can follow."""
        asked = Request(
            body.sql, body.read_only, body.explain, body.limit, body.timeout_ms, statements=shapes.STATEMENTS, bytes=shapes.BYTES
        )
        ran = await self._console.run(path.project_id, asked, request[ACTOR].subject)
        return web.Response(body=orjson.dumps(_answer(asked, ran)), content_type=JSON)


def _answer(request: Request, ran: Ran) -> dict[str, Any]:
    return {
        "results": [
            {
                "line": line_of(request.sql, statement.start)[0],
                "command": result.tag,
                "row_count": _count(result),
                "columns": _columns(ran, result),
                "rows": [_row(result, row) for row in result.rows],
                "truncated": result.more,
            }
            for statement, result in ran.given
        ],
        "notices": ran.notices,
        "transaction": "committed" if request.is_kept else "rolled_back",
        "milliseconds": ran.milliseconds,
    }


def _columns(ran: Ran, result: Result) -> list[dict[str, str]] | None:
    if result.columns is None:
        return None
    return [{"name": name, "type": ran.types[oid, modifier]} for name, oid, modifier in result.columns]


def _count(result: Result) -> int | None:
    last = (result.tag or "").rpartition(" ")[2]
    return int(last) if last.isdigit() and not result.more else None


def _row(result: Result, row: list[bytes | None]) -> list[Any]:
    return [None if raw is None else _value(oid, raw) for (_, oid, _), raw in zip(result.columns or (), row, strict=True)]


def _value(oid: int, raw: bytes) -> Any:
    text = raw.decode(errors="replace")  # the script may have asked for another encoding
    if oid in _AS_THEY_ARE:
        return orjson.Fragment(text)
    if oid == _BOOLEAN:
        return raw == b"t"
    if oid == _MOMENT and (parts := _WRITTEN.fullmatch(raw)):
        day, time, hours, minutes = (p.decode() if p else ":00" for p in parts.groups())
        return f"{day}T{time}{hours}{minutes}"
    return text
