"""How many rows a table has, from what PostgreSQL keeps of it anyway: nothing is counted, and nothing of the table's owner runs.

Two sources, each blind at times. The live counters of the statistics follow every change, but are not copied with a database and are lost in a crash.
`reltuples` is copied and survives, but is only as new as the last ANALYZE, VACUUM or index build, and -1 before.
"""

from __future__ import annotations

from typing import Final

_PAGE: Final = "(pg_catalog.current_setting('block_size')::float8 - 24)"
_WIDTH: Final = """
(SELECT 28 + coalesce(sum(CASE WHEN a.attlen > 0 THEN a.attlen ELSE 32 END), 0) FROM pg_catalog.pg_attribute AS a
 WHERE a.attrelid = {t}.oid AND a.attnum > 0)"""
"""Bytes of a row as the planner guesses them (plancat.c): 28 for its head, 32 for each value of no fixed size."""
_MOST: Final = 2_000_000_000_000
"""No table has more rows: 2^32 pages of 291. `reltuples` is its owner's to set (pg_restore_relation_stats), to NaN and 3e38, too."""
_ESTIMATE: Final = """
(SELECT least({most}, CASE
   WHEN s.unchanged AND {t}.reltuples >= 0 THEN {t}.reltuples
   WHEN s.looked THEN s.live
   WHEN {t}.reltuples >= 0 AND {t}.relpages > 0 THEN greatest(s.live, {t}.reltuples::float8 / {t}.relpages * {pages} - s.deleted)
   WHEN s.written >= {pages} THEN s.live
   ELSE greatest(s.live, {pages} * page / width - s.deleted) END)::bigint
 FROM (SELECT coalesce(pg_catalog.pg_stat_get_last_analyze_time({t}.oid), pg_catalog.pg_stat_get_last_autoanalyze_time({t}.oid),
                       pg_catalog.pg_stat_get_last_vacuum_time({t}.oid), pg_catalog.pg_stat_get_last_autovacuum_time({t}.oid)) IS NOT NULL AS looked,
              coalesce(pg_catalog.pg_stat_get_last_analyze_time({t}.oid), pg_catalog.pg_stat_get_last_autoanalyze_time({t}.oid)) IS NOT NULL
                AND pg_catalog.pg_stat_get_mod_since_analyze({t}.oid) = 0 AS unchanged,
              pg_catalog.pg_stat_get_live_tuples({t}.oid) AS live,
              pg_catalog.pg_stat_get_tuples_inserted({t}.oid) + pg_catalog.pg_stat_get_tuples_updated({t}.oid) AS written,
              pg_catalog.pg_stat_get_tuples_deleted({t}.oid) AS deleted) AS s)"""


def rows(table: str, pages: str) -> str:
    """The estimate of a row of pg_class as SQL, a bigint. `table`: its alias; `pages`: how many it has now (with `relpages`: none were added since).

    Counters that began when the table did, or were set right since by an ANALYZE or VACUUM, are the truth. Counters that know of fewer rows than there
    are pages began later: then it is what was last looked at, for the pages of now; and if nobody ever looked, the planner's own guess of a row's width.
    """
    return _ESTIMATE.replace(" page / width", f" {_PAGE} / {_WIDTH}").format(t=table, pages=pages, most=_MOST)
