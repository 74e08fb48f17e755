-- Platform functions. Run by schema-manager after SET ROLE loquat_system; loquat_system owns them.
-- Every function: SECURITY DEFINER, SET search_path = pg_catalog, pg_temp, every name outside pg_catalog qualified, arguments of
-- built-in types only (so no operator or cast of a tenant can be chosen), EXECUTE by name at the end of this file.
-- Locks are taken in one order everywhere, sorted within each step: addresses, contacts, conversations, events, messages, results.

-- Total order of what may happen to an outbound message: a status is replaced only by a higher one, so the order of arrival does not matter.
CREATE FUNCTION loquat.status_rank(status text) RETURNS int LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN coalesce(array_position(ARRAY['queued', 'sending', 'unknown', 'accepted', 'sent', 'expired', 'failed', 'delivered', 'read', 'played'], status), 0);

-- Id of the n-th reply to an event: UUID version 8 of a sha256. (uuid5 needs sha1, which Postgres has only in pgcrypto.)
CREATE FUNCTION loquat.reply_id(event uuid, n int) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (SELECT encode(set_byte(set_byte(h, 6, get_byte(h, 6) & 15 | 128), 8, get_byte(h, 8) & 63 | 128), 'hex')::uuid
        FROM (SELECT substring(sha256(uuid_send(event) || int4send(n)) FOR 16) AS h) AS digest);

-- A result: {"state": text, "replies": [object, ...], "end": bool}. Checked where it is written, so that what is stored can be committed.
CREATE FUNCTION loquat.check_result(result jsonb) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE wrong text;
BEGIN
  wrong := CASE
    WHEN result IS NULL OR jsonb_typeof(result) <> 'object' THEN 'is not an object'
    WHEN octet_length(result::text) > 262144 THEN 'is larger than 256 KiB'
    WHEN result ? 'state' AND (jsonb_typeof(result->'state') <> 'string' OR length(result->>'state') NOT BETWEEN 1 AND 60)
      THEN 'has a state that is not a text of 1 to 60 characters'
    WHEN result ? 'end' AND jsonb_typeof(result->'end') <> 'boolean' THEN 'has an end that is not a boolean'
    WHEN result ? 'replies' AND jsonb_typeof(result->'replies') <> 'array' THEN 'has replies that are not an array'
    WHEN jsonb_array_length(coalesce(result->'replies', '[]')) > 50 THEN 'has more than 50 replies'
    WHEN EXISTS (SELECT FROM jsonb_array_elements(coalesce(result->'replies', '[]')) AS r
                 WHERE jsonb_typeof(r) <> 'object' OR jsonb_typeof(r->'type') IS DISTINCT FROM 'string') THEN 'has a reply without a type'
  END;
  IF wrong IS NOT NULL THEN RAISE EXCEPTION 'the result %', wrong USING ERRCODE = 'LQ001'; END IF;
END $$;

-- Records inbound events of any number, once each. An element:
--   {"id", "kind", "number_id", "addresses": [{"kind", "value"}, ...], "name", "message": {"type", "text", "content", "raw", "wamid", ...}}
-- The first address known decides the contact. An update (kind) belongs to no conversation and is only counted; an order opens one and has no
-- message. Answers one row per distinct event; fresh is false for one recorded before.
-- raw is a string that holds JSON: jsonb refuses \u0000 and lone surrogates, and one such message would fail its whole batch. The caller
-- takes both out of every other text. Joins are nested loops by decree: the planner takes any batch for 100 rows and, before the first
-- ANALYZE, reads whole tables for one event; so the batch is never joined to itself, events->n finds the element.
CREATE FUNCTION loquat.record_inbound(events jsonb)
RETURNS TABLE (event_id uuid, conversation_id uuid, fresh boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
  given uuid[]; known uuid[]; counted_now uuid[];
  ids uuid[]; places int[]; numbers text[]; contacts uuid[]; conversations uuid[];    -- aligned: the events to record, and where they are in the batch
BEGIN
  SELECT array_agg(id), array_agg(n) INTO given, places
  FROM (SELECT DISTINCT ON (id) (e.value->>'id')::uuid AS id, e.n::int - 1 AS n FROM jsonb_array_elements(events) WITH ORDINALITY AS e(value, n) ORDER BY id) AS distinct_events;

  -- An event seen before must not open a conversation again.
  SELECT array_agg(u.id), array_agg(u.n) INTO ids, places
  FROM unnest(given, places) AS u(id, n) WHERE NOT EXISTS (SELECT FROM loquat.events AS x WHERE x.id = u.id) AND events->u.n->>'kind' <> 'update';

  WITH counted AS (
    INSERT INTO loquat.events (id, kind)
    SELECT u.id, 'update' FROM unnest(given, places) AS u(id, n) WHERE events->u.n->>'kind' = 'update' ORDER BY u.id
    ON CONFLICT (id) DO NOTHING RETURNING id
  )
  SELECT array_agg(id) INTO counted_now FROM counted;

  IF ids IS NOT NULL THEN
    -- A person of whom no address is known: the unique key of addresses decides who creates the contact.
    WITH wanted AS (
      SELECT DISTINCT ON (kind, value) e->'addresses'->0->>'kind' AS kind, e->'addresses'->0->>'value' AS value, loquat.reply_id(u.id, -1) AS contact_id,
             e->>'name' AS name, jsonb_path_query_first(e, '$.addresses[*] ? (@.kind == "phone").value') #>> '{}' AS phone
      FROM unnest(ids, places) AS u(id, n), LATERAL (SELECT events->u.n) AS one(e)
      WHERE NOT EXISTS (SELECT FROM jsonb_array_elements(e->'addresses') AS b JOIN loquat.addresses AS k ON (k.kind, k.value) = (b->>'kind', b->>'value'))
      ORDER BY 1, 2, u.id
    ), taken AS (
      INSERT INTO loquat.addresses (kind, value, contact_id) SELECT kind, value, contact_id FROM wanted ORDER BY kind, value
      ON CONFLICT DO NOTHING RETURNING contact_id
    )
    INSERT INTO public.contacts (id, name, phone_number)
    SELECT w.contact_id, w.name, CASE WHEN NOT EXISTS (SELECT FROM public.contacts AS p WHERE p.phone_number = w.phone) THEN w.phone END
    FROM wanted AS w WHERE w.contact_id = ANY (ARRAY(SELECT contact_id FROM taken)) ORDER BY w.contact_id;

    SELECT array_agg(u.id), array_agg(u.n), array_agg(events->u.n->>'number_id'), array_agg(p.contact_id) INTO ids, places, numbers, contacts
    FROM unnest(ids, places) AS u(id, n),
    LATERAL (SELECT k.contact_id FROM jsonb_array_elements(events->u.n->'addresses') WITH ORDINALITY AS b(a, n)
             JOIN loquat.addresses AS k ON (k.kind, k.value) = (b.a->>'kind', b.a->>'value') ORDER BY b.n LIMIT 1) AS p;

    -- The other addresses that came along are his from now on.
    INSERT INTO loquat.addresses (kind, value, contact_id)
    SELECT DISTINCT ON (a->>'kind', a->>'value') a->>'kind', a->>'value', u.contact_id
    FROM unnest(ids, places, contacts) AS u(id, n, contact_id), jsonb_array_elements(events->u.n->'addresses') AS a
    WHERE NOT EXISTS (SELECT FROM loquat.addresses AS k WHERE (k.kind, k.value) = (a->>'kind', a->>'value'))
    ORDER BY a->>'kind', a->>'value', u.id
    ON CONFLICT DO NOTHING;

    INSERT INTO public.conversations (contact_id, number_id)
    SELECT DISTINCT u.contact_id, u.number_id FROM unnest(contacts, numbers) AS u(contact_id, number_id)
    WHERE NOT EXISTS (SELECT FROM public.conversations AS c WHERE (c.contact_id, c.number_id, c.status) = (u.contact_id, u.number_id, 'open'))
    ORDER BY u.contact_id, u.number_id
    ON CONFLICT DO NOTHING;

    SELECT array_agg(c.id ORDER BY u.n) INTO conversations              -- a null (closed this instant) fails the insert below: the caller repeats
    FROM unnest(contacts, numbers) WITH ORDINALITY AS u(contact_id, number_id, n)
    LEFT JOIN public.conversations AS c ON (c.contact_id, c.number_id, c.status) = (u.contact_id, u.number_id, 'open');

    WITH recorded AS (
      INSERT INTO loquat.events (id, kind, conversation_id)
      SELECT u.id, events->u.n->>'kind', u.conversation_id FROM unnest(ids, places, conversations) AS u(id, n, conversation_id) ORDER BY u.id
      ON CONFLICT (id) DO NOTHING RETURNING id
    )
    SELECT array_agg(id) INTO known FROM recorded;

    INSERT INTO public.messages (id, conversation_id, direction, type, text, content, raw, wamid, reply_to, sender, status, sent_at)
    SELECT u.id, u.conversation_id, 'in', coalesce(m.type, 'unknown'), m.text, m.content, m.raw::json, m.wamid, m.reply_to, 'contact', 'received',
           coalesce(m.sent_at, now())
    FROM unnest(ids, places, conversations) AS u(id, n, conversation_id),
         jsonb_to_record(events->u.n->'message') AS m(type text, text text, content jsonb, raw text, wamid text, reply_to text, sent_at timestamptz)
    WHERE events->u.n ? 'message' AND u.id = ANY (known)
    ORDER BY u.id
    ON CONFLICT DO NOTHING;
  END IF;

  RETURN QUERY SELECT x.id, x.conversation_id, x.id = ANY (coalesce(known, '{}') || coalesce(counted_now, '{}')) FROM loquat.events AS x WHERE x.id = ANY (given);
END $$;

-- One round trip before a handler. Answers what to do:
--   done      a marker exists; outbox holds what is still to be published
--   recorded  this event's result is stored: call commit_run
--   blocked   another event's result holds this version (in blocked_by): commit_run that one first, then begin again
--   held      a person holds the conversation, or the caller gave the outcome (held, expired, discarded): marked
--   run       call the handler with state and version
-- What the outbox of an event still holds, with all that a publisher needs.
CREATE FUNCTION loquat.outbox_of(event uuid) RETURNS jsonb LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_agg(jsonb_build_object('message_id', o.message_id, 'event_id', o.event_id, 'conversation_id', c.id, 'contact_id', c.contact_id,
           'number_id', c.number_id, 'sender', m.sender, 'queued_at', o.created_at, 'body', o.body,
           'addresses', (SELECT jsonb_agg(jsonb_build_object('kind', a.kind, 'value', a.value)
                                          ORDER BY array_position(ARRAY['user_id', 'wa_id', 'phone', 'username'], a.kind), a.value)
                         FROM loquat.addresses AS a WHERE a.contact_id = c.contact_id)) ORDER BY o.seq)
  FROM loquat.outbox AS o JOIN public.messages AS m ON m.id = o.message_id JOIN public.conversations AS c ON c.id = m.conversation_id
  WHERE o.event_id = outbox_of.event
$$;

CREATE FUNCTION loquat.begin_run(event jsonb, hold text DEFAULT NULL)
RETURNS TABLE (todo text, conversation_id uuid, contact_id uuid, state text, version bigint, blocked_by uuid, outbox jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  this constant uuid := (event->>'id')::uuid;
  x loquat.events; c public.conversations; r loquat.results;
BEGIN
  SELECT * INTO x FROM loquat.events AS e WHERE e.id = this;
  IF NOT FOUND THEN
    PERFORM loquat.record_inbound(jsonb_build_array(event));
    SELECT * INTO STRICT x FROM loquat.events AS e WHERE e.id = this;
  END IF;
  IF x.conversation_id IS NULL THEN                         -- an update: recorded, nothing to run
    UPDATE loquat.events AS e SET outcome = coalesce(hold, 'handled'), finished_at = now() WHERE e.id = x.id AND e.outcome IS NULL;
    todo := 'done';
    RETURN NEXT; RETURN;
  END IF;
  SELECT * INTO STRICT c FROM public.conversations AS v WHERE v.id = x.conversation_id;
  conversation_id := c.id; contact_id := c.contact_id; state := c.state; version := c.version;

  SELECT * INTO r FROM loquat.results AS s WHERE s.conversation_id = c.id AND s.version = c.version;
  IF r.event_id = x.id THEN todo := 'recorded';             -- before the marker: a bot that froze may commit its result after 'held'
  ELSIF x.outcome IS NOT NULL THEN
    todo := 'done';
    outbox := loquat.outbox_of(x.id);
  ELSIF r.event_id IS NOT NULL THEN todo := 'blocked'; blocked_by := r.event_id;
  ELSIF hold IS NOT NULL OR c.holder <> 'bot' AND x.kind = 'message' THEN
    UPDATE loquat.events AS e SET outcome = coalesce(hold, 'held'), finished_at = now() WHERE e.id = x.id AND e.outcome IS NULL;
    todo := 'held';
  ELSE
    UPDATE loquat.events AS e SET opened_at = now() WHERE e.id = x.id AND e.opened_at IS NULL;
    todo := 'run';
  END IF;
  RETURN NEXT;
END $$;

-- Called by the SDK as the last statement of a handler's own transaction. It writes one row and locks none.
CREATE FUNCTION loquat.record_result(event uuid, version bigint, result jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
#variable_conflict use_column
DECLARE conversation uuid;
BEGIN
  -- EXECUTE belongs to the owner role, as which every login of the project starts; only the bot's login may go on.
  IF session_user <> (SELECT i.bot_login FROM loquat.identity AS i) THEN
    RAISE EXCEPTION 'record_result is for bot code' USING ERRCODE = 'LQ002';
  END IF;
  PERFORM loquat.check_result(result);
  SELECT e.conversation_id INTO conversation
  FROM loquat.events AS e JOIN public.conversations AS c ON c.id = e.conversation_id
  WHERE e.id = event AND e.opened_at IS NOT NULL AND e.outcome IS NULL AND c.version = record_result.version;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the event is not open at this version' USING ERRCODE = 'LQ003';
  END IF;
  -- Both unique keys fence: a second run of this event, and a run of another event of this conversation at the same version. They hold
  -- whatever isolation level or old snapshot the tenant chose. The loser sees unique_violation and rolls back; the runner begins again.
  INSERT INTO loquat.results (event_id, conversation_id, version, result) VALUES (event, conversation, record_result.version, result);
END $$;

-- Applies the outcome of an event once. A stored result wins over the argument, which may then be null, so anybody may finish anybody's
-- event. Answers 'committed' or 'done' with the outbox rows to publish, or 'superseded': begin again.
CREATE FUNCTION loquat.commit_run(event uuid, expected_version bigint DEFAULT NULL, result jsonb DEFAULT NULL)
RETURNS TABLE (status text, outbox jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
#variable_conflict use_column
DECLARE x loquat.events; c public.conversations; r loquat.results;
BEGIN
  SELECT * INTO x FROM loquat.events AS e WHERE e.id = event;
  IF NOT FOUND THEN RAISE EXCEPTION 'unknown event' USING ERRCODE = 'LQ004'; END IF;
  SELECT * INTO STRICT c FROM public.conversations AS v WHERE v.id = x.conversation_id FOR NO KEY UPDATE;
  SELECT * INTO STRICT x FROM loquat.events AS e WHERE e.id = event FOR NO KEY UPDATE;

  SELECT * INTO r FROM loquat.results AS s WHERE s.event_id = event;
  IF r.event_id IS NULL AND x.outcome IS NULL AND result IS NOT NULL AND expected_version = c.version THEN
    PERFORM loquat.check_result(result);
    -- Waits for a bot's open transaction on the same event or version, at most lock_timeout.
    INSERT INTO loquat.results (event_id, conversation_id, version, result) VALUES (event, c.id, c.version, result) ON CONFLICT DO NOTHING;
    SELECT * INTO r FROM loquat.results AS s WHERE s.event_id = event;
  END IF;

  IF r.version = c.version THEN             -- a result at the present version is applied, whatever the marker says; older ones have been
    UPDATE public.conversations AS v
    SET version = v.version + 1, state = coalesce(r.result->>'state', v.state),
        status = CASE WHEN (r.result->>'end')::boolean THEN 'closed' ELSE v.status END,
        closed_at = CASE WHEN (r.result->>'end')::boolean THEN now() END
    WHERE v.id = c.id;
    UPDATE loquat.events AS e SET outcome = 'handled', finished_at = now() WHERE e.id = event;
    WITH replies AS (
      SELECT loquat.reply_id(event, n::int) AS id, n, body FROM jsonb_array_elements(r.result->'replies') WITH ORDINALITY AS a(body, n)
    ), queued AS (
      INSERT INTO public.messages (id, conversation_id, direction, type, text, content, sender, sender_id, status, transitions, sent_at)
      SELECT id, c.id, 'out', body->>'type', body->>'text', nullif(body->'content', 'null'), CASE x.kind WHEN 'order' THEN 'person' ELSE 'bot' END,
             CASE x.kind WHEN 'order' THEN r.result->>'ordered_by' END, 'queued', jsonb_build_object('queued', now()),
             clock_timestamp() + n * interval '1 microsecond' FROM replies
    )
    INSERT INTO loquat.outbox (message_id, event_id, body) SELECT id, event, body FROM replies ORDER BY n;
    status := 'committed';
  ELSE
    status := CASE WHEN x.outcome IS NULL THEN 'superseded' ELSE 'done' END;
  END IF;
  outbox := loquat.outbox_of(commit_run.event);
  RETURN NEXT;
END $$;

-- After the publish is durable: of one event, or of all that were published together.
CREATE FUNCTION loquat.clear_outbox(events uuid[]) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC DELETE FROM loquat.outbox AS o WHERE o.event_id = ANY (events); END;

-- Applies receipts [{"key", "status", "at", "error_code", "error_title", "pricing", "billable", "wamid"}, ...] in any order, any number of times.
-- key is a message id or a wamid. What has no message yet waits; a lock on the key makes receipt and message see each other.
CREATE FUNCTION loquat.apply_receipts(receipts jsonb) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE early text[]; applied int;
BEGIN
  applied := loquat.apply_statuses(receipts);
  SELECT array_agg(DISTINCT e.key ORDER BY e.key) INTO early FROM jsonb_to_recordset(receipts) AS e(key text)
  WHERE NOT EXISTS (SELECT FROM public.messages AS m WHERE m.wamid = e.key)
    AND NOT EXISTS (SELECT FROM public.messages AS m WHERE m.id = loquat.as_uuid(e.key));
  IF early IS NOT NULL THEN
    PERFORM pg_advisory_xact_lock(hashtextextended(k, 0)) FROM unnest(early) AS k;
    INSERT INTO loquat.receipts (key, status, body)
    SELECT DISTINCT ON (e->>'key', e->>'status') e->>'key', e->>'status', e FROM jsonb_array_elements(receipts) AS e
    WHERE e->>'key' = ANY (early) ORDER BY e->>'key', e->>'status' ON CONFLICT DO NOTHING;
    applied := applied + loquat.settle_receipts(early);
  END IF;
  RETURN applied;
END $$;

-- Messages sent by others than commit_run (echoes from the phone app, history): [{"id", "conversation_id", "type", "text", "wamid", "sender", ...}].
CREATE FUNCTION loquat.record_outbound(messages jsonb) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE keys text[]; added int;
BEGIN
  SELECT array_agg(DISTINCT k ORDER BY k) INTO keys
  FROM jsonb_to_recordset(messages) AS e(id text, wamid text), unnest(ARRAY[e.id, e.wamid]) AS k WHERE k IS NOT NULL;
  INSERT INTO public.messages (id, conversation_id, direction, type, text, content, raw, wamid, sender, sender_id, status, sent_at)
  SELECT DISTINCT ON (e.id) e.id, e.conversation_id, 'out', e.type, e.text, e.content, e.raw::json, e.wamid, e.sender, e.sender_id, coalesce(e.status, 'queued'), coalesce(e.sent_at, now())
  FROM jsonb_to_recordset(messages) AS e(id uuid, conversation_id uuid, type text, text text, content jsonb, raw text, wamid text,
                                         sender text, sender_id text, status text, sent_at timestamptz)
  ORDER BY e.id ON CONFLICT DO NOTHING;
  GET DIAGNOSTICS added = ROW_COUNT;
  PERFORM pg_advisory_xact_lock(hashtextextended(k, 0)) FROM unnest(keys) AS k;
  PERFORM loquat.settle_receipts(keys);
  RETURN added;
END $$;

-- Used by the two above and callable by nobody else.
-- (plpgsql, because the planner evaluates the cast inside an SQL CASE when the value is known: the error comes before the test.)
CREATE FUNCTION loquat.as_uuid(value text) RETURNS uuid LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF pg_input_is_valid(value, 'uuid') THEN RETURN value::uuid; END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION loquat.apply_statuses(receipts jsonb) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE n int;
BEGIN
  WITH matched AS (
    SELECT m.id, e.* FROM jsonb_to_recordset(receipts) AS e(key text, status text, at timestamptz, error_code int, error_title text, pricing text,
                                                            billable boolean, wamid text)
    JOIN public.messages AS m ON m.id = loquat.as_uuid(e.key)
    UNION ALL
    SELECT m.id, e.* FROM jsonb_to_recordset(receipts) AS e(key text, status text, at timestamptz, error_code int, error_title text, pricing text,
                                                            billable boolean, wamid text)
    JOIN public.messages AS m ON m.wamid = e.key
  ), best AS (
    SELECT id, (array_agg(status ORDER BY loquat.status_rank(status) DESC))[1] AS status, jsonb_object_agg(status, at ORDER BY at DESC) AS transitions,
           max(error_code) AS error_code, max(error_title) AS error_title, max(pricing) AS pricing, bool_or(billable) AS billable, max(wamid) AS wamid
    FROM matched WHERE loquat.status_rank(status) > 0 GROUP BY id
  )
  UPDATE public.messages AS m
  SET status = CASE WHEN loquat.status_rank(b.status) > loquat.status_rank(m.status) THEN b.status ELSE m.status END,
      transitions = (SELECT jsonb_object_agg(t.key, t.value ORDER BY (t.value #>> '{}')::timestamptz DESC)     -- the earliest time of a status wins
                     FROM (SELECT * FROM jsonb_each(m.transitions) UNION ALL SELECT * FROM jsonb_each(b.transitions)) AS t),
      error_code = coalesce(m.error_code, b.error_code), error_title = coalesce(m.error_title, b.error_title),
      pricing = coalesce(m.pricing, b.pricing), billable = coalesce(m.billable, b.billable), wamid = coalesce(m.wamid, b.wamid)
  FROM best AS b WHERE m.id = b.id;
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN n;
END $$;

CREATE FUNCTION loquat.settle_receipts(keys text[]) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE waiting jsonb;
BEGIN
  WITH taken AS (
    DELETE FROM loquat.receipts AS r WHERE r.key = ANY (keys)
      AND (EXISTS (SELECT FROM public.messages AS m WHERE m.wamid = r.key) OR EXISTS (SELECT FROM public.messages AS m WHERE m.id = loquat.as_uuid(r.key)))
    RETURNING r.body
  )
  SELECT jsonb_agg(body) INTO waiting FROM taken;
  RETURN CASE WHEN waiting IS NULL THEN 0 ELSE loquat.apply_statuses(waiting) END;
END $$;

-- What this database says of itself: a service compares it with the directory when it opens a connection.
CREATE FUNCTION loquat.whoami() RETURNS TABLE (project text, epoch bigint) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC SELECT i.project, i.epoch FROM loquat.identity AS i; END;

-- The markers of P7: accepted = handled + held + expired + discarded + open; what of the open ones is deferred or dead, bot-runner's rows know.
CREATE FUNCTION loquat.ledger() RETURNS TABLE (accepted bigint, handled bigint, held bigint, expired bigint, discarded bigint, open bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT count(*), count(*) FILTER (WHERE e.outcome = 'handled'), count(*) FILTER (WHERE e.outcome = 'held'), count(*) FILTER (WHERE e.outcome = 'expired'),
         count(*) FILTER (WHERE e.outcome = 'discarded'), count(*) FILTER (WHERE e.outcome IS NULL)
  FROM loquat.events AS e;
END;

-- Gives a fresh database to its project: the provisioner's last step before tenants may connect. Names are derived, so no argument is a role.
CREATE FUNCTION loquat.open_project(project text, epoch bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE owner name := current_database() || '_owner';
BEGIN
  INSERT INTO loquat.identity (project, epoch, bot_login) VALUES (project, epoch, current_database() || '_bot')
  ON CONFLICT (singleton) DO UPDATE SET project = excluded.project, epoch = excluded.epoch, bot_login = excluded.bot_login
  WHERE identity.epoch < excluded.epoch;
  EXECUTE format('GRANT USAGE, CREATE ON SCHEMA public TO %I', owner);
  EXECUTE format('GRANT SELECT ON public.contacts, public.conversations, public.messages TO %I', owner);
  EXECUTE format('GRANT USAGE ON SCHEMA loquat TO %I', owner);
  EXECUTE format('GRANT EXECUTE ON FUNCTION loquat.record_result TO %I', owner);
END $$;

-- Who may call what. Belt besides the default privileges: PUBLIC has nothing even if a default was forgotten.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA loquat FROM PUBLIC;
GRANT EXECUTE ON FUNCTION loquat.record_inbound TO loquat_conversation_log, loquat_bot_runner;
GRANT EXECUTE ON FUNCTION loquat.begin_run, loquat.commit_run, loquat.clear_outbox TO loquat_bot_runner;
GRANT EXECUTE ON FUNCTION loquat.whoami TO loquat_service;
GRANT EXECUTE ON FUNCTION loquat.ledger TO loquat_bot_runner, loquat_conversation_log;
GRANT EXECUTE ON FUNCTION loquat.record_outbound, loquat.apply_receipts TO loquat_conversation_log;
GRANT EXECUTE ON FUNCTION loquat.open_project TO loquat_provisioner;
