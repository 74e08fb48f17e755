-- How many rows of the project's own tables a handler's transaction changed, kept with its result: bot-runner tells live views after the commit.
-- The rules stand at the head of 0002.

ALTER TABLE loquat.results ADD COLUMN touched jsonb;        -- table -> rows; null: nothing, or recorded before this column was there

-- Rows inserted, updated and deleted by this transaction, by table of schema public (a partition counts for its root); the tables with most rows
-- first, at most 100; null if none. TRUNCATE counts nothing.
--
-- The server's counters of a session hold what it has not yet handed over, so they begin at zero only where the transaction before ended with a
-- hand-over: record_result asks for one, and so does the SDK when it rolls back.
CREATE FUNCTION loquat.touched_here() RETURNS jsonb LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_object_agg(b.name, b.rows)
  FROM (SELECT r.relname AS name, sum(n.rows)::bigint AS rows
        FROM pg_class AS c JOIN pg_class AS r ON r.oid = coalesce(pg_partition_root(c.oid), c.oid),
             LATERAL (SELECT pg_stat_get_xact_tuples_inserted(c.oid) + pg_stat_get_xact_tuples_updated(c.oid) + pg_stat_get_xact_tuples_deleted(c.oid) AS rows) AS n
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relowner <> 'loquat_system'::regrole AND n.rows > 0
        GROUP BY r.relname ORDER BY rows DESC, name LIMIT 100) AS b
$$;

CREATE OR REPLACE FUNCTION loquat.record_result(event uuid, version bigint, result jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
#variable_conflict use_column
DECLARE conversation uuid;
BEGIN
  -- EXECUTE belongs to the owner role, as which every login of the project starts; only the bot's login may go on.
  IF session_user IS DISTINCT FROM (SELECT i.bot_login FROM loquat.identity AS i) THEN
    RAISE EXCEPTION 'record_result is for bot code' USING ERRCODE = 'LQ002';
  END IF;
  PERFORM loquat.check_result(result);
  -- A person's order is none of a bot's: its result would speak in that person's name.
  SELECT e.conversation_id INTO conversation
  FROM loquat.events AS e JOIN public.conversations AS c ON c.id = e.conversation_id
  WHERE e.id = event AND e.kind = 'message' AND e.opened_at IS NOT NULL AND e.outcome IS NULL AND c.version = record_result.version;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the event is not open at this version' USING ERRCODE = 'LQ003';
  END IF;
  PERFORM pg_stat_force_next_flush();                       -- also when this transaction is rolled back: the next one counts from zero
  -- Both unique keys fence: a second run of this event, and a run of another event of this conversation at the same version. They hold
  -- whatever isolation level or old snapshot the tenant chose. The loser sees unique_violation and rolls back; the runner begins again.
  INSERT INTO loquat.results (event_id, conversation_id, version, result, touched)
  VALUES (event, conversation, record_result.version, result, loquat.touched_here());
END $$;

-- What the result of an event touched: {"table": rows, ...}; null: nothing.
CREATE FUNCTION loquat.touched_by(event uuid) RETURNS jsonb LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC SELECT r.touched FROM loquat.results AS r WHERE r.event_id = touched_by.event; END;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA loquat FROM PUBLIC;
GRANT EXECUTE ON FUNCTION loquat.touched_by TO loquat_bot_runner;
