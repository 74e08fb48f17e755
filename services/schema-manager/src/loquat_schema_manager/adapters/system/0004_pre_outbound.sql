-- What goes out: messages of others than commit_run, and receipts. The rules stand at the head of 0002.
--
-- Receipts and messages come in any order, any number of times. Both functions first lock the keys they carry (a message's id, a wamid), so
-- that of a receipt and its message the second one sees the first; a receipt without a message waits as a row.

-- Total order of what may happen to an outbound message: a status is replaced only by a higher one, so the order of arrival does not matter.
CREATE FUNCTION loquat.status_rank(status text) RETURNS int LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN coalesce(array_position(ARRAY['queued', 'sending', 'unknown', 'accepted', 'sent', 'expired', 'failed', 'delivered', 'read', 'played'], status), 0);

-- plpgsql, because the planner evaluates the cast inside an SQL CASE when the value is known: the error would come before the test.
CREATE FUNCTION loquat.as_uuid(value text) RETURNS uuid LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF pg_input_is_valid(value, 'uuid') THEN RETURN value::uuid; END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION loquat.lock_keys(keys text[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(h) FROM (SELECT DISTINCT hashtextextended(k, 0) AS h FROM unnest(keys) AS u(k) WHERE k IS NOT NULL ORDER BY h) AS sorted;
END $$;

-- A receipt's message: by its id, else by its wamid among our own. (The contact's end of a message has the same wamid.)
CREATE FUNCTION loquat.message_of(key text) RETURNS uuid LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce((SELECT m.id FROM public.messages AS m WHERE m.id = loquat.as_uuid(key) AND m.direction = 'out'),
                  (SELECT m.id FROM public.messages AS m WHERE m.wamid = key AND m.direction = 'out'))
$$;

-- Raises the statuses of the messages that the receipts are about; those without a message are left out. A status nobody knows yet is kept
-- among the transitions and raises nothing (P6). The earliest time of a status wins.
CREATE FUNCTION loquat.apply_statuses(receipts jsonb) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE ids uuid[]; touched int;
BEGIN
  ids := ARRAY(SELECT loquat.message_of(e->>'key') FROM jsonb_array_elements(receipts) WITH ORDINALITY AS a(e, n) ORDER BY n);
  PERFORM FROM public.messages AS m WHERE m.id = ANY (ids) ORDER BY m.id FOR NO KEY UPDATE;
  WITH matched AS (
    SELECT ids[a.n] AS id, e.* FROM jsonb_array_elements(receipts) WITH ORDINALITY AS a(value, n),
           jsonb_to_record(a.value) AS e(status text, at timestamptz, error_code int, error_title text, pricing text, billable boolean, wamid text)
    WHERE ids[a.n] IS NOT NULL
  ), best AS (
    SELECT id, (array_agg(status ORDER BY loquat.status_rank(status) DESC))[1] AS status,
           jsonb_object_agg(status, coalesce(at, now()) ORDER BY at DESC) AS transitions,
           max(error_code) AS error_code, max(error_title) AS error_title, max(pricing) AS pricing, bool_or(billable) AS billable, max(wamid) AS wamid
    FROM matched WHERE status IS NOT NULL GROUP BY id
  )
  UPDATE public.messages AS m
  SET status = CASE WHEN loquat.status_rank(b.status) > loquat.status_rank(m.status) THEN b.status ELSE m.status END,
      transitions = (SELECT jsonb_object_agg(t.key, t.value ORDER BY (t.value #>> '{}')::timestamptz DESC)
                     FROM (SELECT * FROM jsonb_each(m.transitions) UNION ALL SELECT * FROM jsonb_each(b.transitions)) AS t),
      error_code = coalesce(m.error_code, b.error_code), error_title = coalesce(m.error_title, b.error_title),
      pricing = coalesce(m.pricing, b.pricing), billable = coalesce(m.billable, b.billable),
      wamid = coalesce(m.wamid, CASE WHEN NOT EXISTS (SELECT FROM public.messages AS o WHERE o.wamid = b.wamid AND o.direction = 'out') THEN b.wamid END)
  FROM best AS b WHERE m.id = b.id;
  GET DIAGNOSTICS touched = ROW_COUNT;
  RETURN touched;
END $$;

-- Applies waiting receipts whose message is here now.
CREATE FUNCTION loquat.settle_receipts(keys text[]) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE waiting jsonb;
BEGIN
  WITH taken AS (
    DELETE FROM loquat.receipts AS r WHERE r.key = ANY (keys) AND loquat.message_of(r.key) IS NOT NULL RETURNING r.body
  )
  SELECT jsonb_agg(body) INTO waiting FROM taken;
  RETURN CASE WHEN waiting IS NULL THEN 0 ELSE loquat.apply_statuses(waiting) END;
END $$;

-- Applies receipts [{"key", "status", "at", "error_code", "error_title", "pricing", "billable", "wamid"}, ...]; key is a message's id or a
-- wamid. Answers how many messages were touched.
CREATE FUNCTION loquat.apply_receipts(receipts jsonb) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  keys constant text[] := ARRAY(SELECT DISTINCT k FROM jsonb_to_recordset(receipts) AS e(key text, wamid text), unnest(ARRAY[e.key, e.wamid]) AS k WHERE k IS NOT NULL);
  applied int;
BEGIN
  PERFORM loquat.lock_keys(keys);
  applied := loquat.apply_statuses(receipts);
  INSERT INTO loquat.receipts (key, status, body)
  SELECT DISTINCT ON (e->>'key', e->>'status') e->>'key', e->>'status', e FROM jsonb_array_elements(receipts) AS e
  WHERE e->>'key' IS NOT NULL AND e->>'status' IS NOT NULL AND loquat.message_of(e->>'key') IS NULL
  ORDER BY e->>'key', e->>'status', e->>'at' ON CONFLICT DO NOTHING;
  RETURN applied + loquat.settle_receipts(keys);            -- what waited for a wamid that its message has learned just now
END $$;

-- Messages sent by others than commit_run (echoes from the phone app, history), and those of commit_run again:
-- [{"id", "conversation_id", "type", "text", "content", "raw", "wamid", "sender", "sender_id", "status", "sent_at"}, ...]. Answers how many are new.
CREATE FUNCTION loquat.record_outbound(messages jsonb) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  keys constant text[] := ARRAY(SELECT DISTINCT k FROM jsonb_to_recordset(messages) AS e(id text, wamid text), unnest(ARRAY[e.id, e.wamid]) AS k WHERE k IS NOT NULL);
  added int;
BEGIN
  PERFORM loquat.lock_keys(keys);
  INSERT INTO public.messages (id, conversation_id, direction, type, text, content, raw, wamid, sender, sender_id, status, transitions, sent_at)
  SELECT DISTINCT ON (e.id) e.id, e.conversation_id, 'out', e.type, e.text, nullif(e.content, 'null'), loquat.as_json(e.raw), e.wamid, e.sender, e.sender_id,
         coalesce(e.status, 'queued'), jsonb_build_object(coalesce(e.status, 'queued'), coalesce(e.sent_at, now())), coalesce(e.sent_at, now())
  FROM jsonb_to_recordset(messages) AS e(id uuid, conversation_id uuid, type text, text text, content jsonb, raw text, wamid text,
                                         sender text, sender_id text, status text, sent_at timestamptz)
  ORDER BY e.id ON CONFLICT DO NOTHING;
  GET DIAGNOSTICS added = ROW_COUNT;
  PERFORM loquat.settle_receipts(keys);
  RETURN added;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA loquat FROM PUBLIC;
GRANT EXECUTE ON FUNCTION loquat.record_outbound, loquat.apply_receipts TO loquat_conversation_log;
