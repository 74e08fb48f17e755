-- What notes changes of rows: in the project's own schema and as its own role, so it runs with the rights of whoever changes a row, never ours.

-- The same value is the same text, whatever the session that wrote it has set: an undo compares. adapters/history.py sets the same.
CREATE OR REPLACE FUNCTION public.row_history_image(changed anyelement) RETURNS jsonb LANGUAGE plpgsql SECURITY INVOKER
SET TimeZone = 'UTC' SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'postgres' SET bytea_output = 'hex' SET extra_float_digits = 1
AS 'BEGIN RETURN pg_catalog.to_jsonb(changed); END';

CREATE OR REPLACE FUNCTION public.row_history_note() RETURNS trigger LANGUAGE plpgsql SECURITY INVOKER AS $$
DECLARE
  usual boolean := pg_catalog.current_setting('TimeZone') IN ('UTC', 'GMT', 'Etc/UTC') AND pg_catalog.current_setting('DateStyle') LIKE 'ISO,%'
    AND pg_catalog.current_setting('IntervalStyle') = 'postgres' AND pg_catalog.current_setting('bytea_output') = 'hex'
    AND pg_catalog.current_setting('extra_float_digits') = '1';     -- so that only odd sessions pay for setting five things at each row
  was jsonb := CASE WHEN TG_OP NOT IN ('UPDATE', 'DELETE') THEN NULL WHEN usual THEN pg_catalog.to_jsonb(OLD) ELSE public.row_history_image(OLD) END;
  is_now jsonb := CASE WHEN TG_OP NOT IN ('UPDATE', 'INSERT') THEN NULL WHEN usual THEN pg_catalog.to_jsonb(NEW) ELSE public.row_history_image(NEW) END;
  who text := pg_catalog.substring(session_user::text, '_(bot|editor|direct)$');
  undone text := pg_catalog.current_setting('loquat.undoes', true);
  names text[] := ARRAY(                            -- one by one by the catalogue's index: half the cost of a row was `= ANY (conkey)`
    SELECT a.attname FROM pg_catalog.pg_constraint AS k, pg_catalog.unnest(k.conkey) AS n, pg_catalog.pg_attribute AS a
    WHERE k.conrelid = TG_RELID AND k.contype = 'p' AND a.attrelid = TG_RELID AND a.attnum = n);
BEGIN
  IF pg_catalog.to_regclass('public.row_history') IS NULL OR was = is_now THEN
    RETURN NULL;                                    -- whoever drops the history may go on writing
  END IF;
  INSERT INTO public.row_history (history, operation, login, claimed, undoes, key, old, new)
  SELECT TG_ARGV[0]::pg_catalog.uuid, pg_catalog.lower(TG_OP), who,
         CASE WHEN who = 'editor' THEN nullif(pg_catalog.current_setting('loquat.actor', true), '') END,
         CASE WHEN undone ~ '^[0-9]{1,18}$' THEN undone::pg_catalog.int8 END,
         (SELECT pg_catalog.jsonb_object_agg(n, coalesce(is_now, was) -> n) FROM pg_catalog.unnest(names) AS n WHERE TG_OP <> 'TRUNCATE'),
         was, is_now;
  RETURN NULL;
END $$;
