"""Changes of rows whose time is over are deleted, as the project's editor: the history is a table of the project's own, with triggers of its own, perhaps."""

from __future__ import annotations

import asyncio
from typing import Final

from loquat_common.problems import Problem
from loquat_rest.history import KEPT

from loquat_schema_manager.adapters.blame import fitting
from loquat_schema_manager.adapters.editors import Editors, Session
from loquat_schema_manager.adapters.history import is_there

BATCH: Final = 10_000
"""Changes that are deleted by one statement."""
_BATCHES: Final = 20  # of one project, then it is another one's turn
_TURN: Final = 30.0
"""Seconds of one project in all: a trigger may set aside what a session says of its later statements."""
_SESSION: Final = Session(statement_ms=10_000, frees=True)

# purpose: at most $1 of the oldest changes of each table, whose days are over or that is gone. The index of (history, id) is walked from one history to
# the next, and each from its oldest end; where nothing is over, that is all that is read.
_EXPIRE: Final = f"""
WITH RECURSIVE histories AS (
  (SELECT h.history FROM public.row_history AS h ORDER BY h.history LIMIT 1)
  UNION ALL
  SELECT (SELECT h.history FROM public.row_history AS h WHERE h.history > x.history ORDER BY h.history LIMIT 1) FROM histories AS x WHERE x.history IS NOT NULL
), noting AS MATERIALIZED (
  SELECT DISTINCT a.arguments[1] AS history, CASE WHEN a.arguments[2] ~ '^[1-9][0-9]{{0,3}}$' THEN a.arguments[2]::pg_catalog.int4 ELSE {KEPT} END AS days
  FROM pg_catalog.pg_trigger AS t, LATERAL (SELECT pg_catalog.string_to_array(pg_catalog.encode(t.tgargs, 'escape'), '\\000') AS arguments) AS a
  WHERE t.tgfoid = pg_catalog.to_regprocedure('public.row_history_note()')
)
DELETE FROM public.row_history WHERE id IN (
  SELECT o.id FROM histories AS x LEFT JOIN noting AS n ON n.history = x.history::pg_catalog.text,
    LATERAL (SELECT h.id, h.at FROM public.row_history AS h WHERE h.history = x.history ORDER BY h.history, h.id LIMIT $1) AS o
  WHERE x.history IS NOT NULL AND (n.history IS NULL OR o.at < pg_catalog.now() - pg_catalog.make_interval(days => n.days)) LIMIT $1)"""  # noqa: S608  (constants)


class Expiry:
    """What deletes them."""

    def __init__(self, editors: Editors, *, turn: float = _TURN) -> None:
        self._editors, self._turn = editors, turn

    async def of(self, project: str) -> int:
        """Deletes up to 200,000 changes of a project; how many.

        Raises:
            Problem: as a session does; whatever the project's own triggers say; 503 when its turn is over, what was deleted stays so.
        """
        count = 0
        async with self._editors.session(project, _SESSION) as connection:
            try:
                if not await is_there(connection):
                    return 0
            except Problem:  # something else has the name
                return 0
            async with asyncio.timeout(self._turn):
                for _ in range(_BATCHES):
                    with fitting():
                        tag = await connection.execute(_EXPIRE, BATCH)
                    gone = int(tag.rpartition(" ")[2])
                    count += gone
                    if gone < BATCH:
                        break
        return count
