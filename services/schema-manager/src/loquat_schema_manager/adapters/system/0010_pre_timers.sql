-- Timers of conversations, schedules of the bot. The rules stand at the head of 0002; rows of timers and automations are locked after results.
--
-- A timer is part of a handler's result, so it becomes true with its replies or not at all, and no tenant's transaction ever locks one. When it is due
-- bot-runner's own index knows; a row that the index has not been told of is not `armed`, and whoever finishes an event of the project is given it.
-- A timer that fires is an event of its conversation, a schedule one of its own: the marker swallows each repetition.

ALTER TABLE loquat.events DROP CONSTRAINT events_kind_check, DROP CONSTRAINT events_check,
  ADD CONSTRAINT events_kind_check CHECK (kind IN ('message', 'order', 'update', 'timer', 'schedule')) NOT VALID,   -- rows that are there met a narrower one
  ADD CONSTRAINT events_check CHECK (kind IN ('update', 'schedule') OR conversation_id IS NOT NULL) NOT VALID;

CREATE TABLE loquat.timers (
    id              uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
    conversation_id uuid        NOT NULL,                   -- no foreign key: nothing here locks a system row for long
    name            text        NOT NULL,
    due_at          timestamptz,                            -- null: cancelled; the row stays until the index is told
    data            jsonb,
    until_answer    boolean     NOT NULL,
    version         bigint      NOT NULL,                   -- the conversation's when it was set: what is later replaces what is earlier
    event_id        uuid        NOT NULL UNIQUE,            -- of its firing
    armed           boolean     NOT NULL DEFAULT false,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (conversation_id, name)
) WITH (fillfactor = 80);
CREATE INDEX ON loquat.timers (updated_at) WHERE NOT armed;

ALTER TABLE loquat.system_automations
  ADD COLUMN tz       text    NOT NULL DEFAULT 'UTC',
  ADD COLUMN catch_up text    NOT NULL DEFAULT 'once' CHECK (catch_up IN ('skip', 'once', 'all')),
  ADD COLUMN declared boolean NOT NULL DEFAULT true,        -- false: the deployed code has it no more; whether it is on is remembered
  ADD UNIQUE (bot_id, name);                                -- script: the name of the handler

CREATE TABLE loquat.automation_runs (
    event_id      uuid        NOT NULL PRIMARY KEY,
    automation_id uuid        NOT NULL REFERENCES loquat.system_automations ON DELETE CASCADE,
    due_at        timestamptz NOT NULL,
    ordered_by    text,                                     -- null: its time had come
    recorded_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON loquat.automation_runs (automation_id, recorded_at DESC);

DO $$
BEGIN
  REVOKE USAGE ON TYPE loquat.timers, loquat.automation_runs FROM PUBLIC;
END $$;

-- The event of a timer that was set at this version of its conversation.
CREATE FUNCTION loquat.firing_id(timer uuid, version bigint) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (SELECT encode(set_byte(set_byte(h, 6, get_byte(h, 6) & 15 | 128), 8, get_byte(h, 8) & 63 | 128), 'hex')::uuid
        FROM (SELECT substring(sha256('timer' || uuid_send(timer) || int8send(version)) FOR 16) AS h) AS digest);

-- ---------------------------------------------------------------- what comes in
ALTER FUNCTION loquat.record_inbound(jsonb) RENAME TO record_talk;
REVOKE ALL ON FUNCTION loquat.record_talk FROM loquat_conversation_log, loquat_bot_runner;

-- {"id", "kind": "timer", "conversation_id"} or {"id", "kind": "schedule", "schedule": {"automation_id", "due_at", "ordered_by"}}: which are new.
CREATE FUNCTION loquat.record_timed(events jsonb) RETURNS uuid[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE added uuid[];
BEGIN
  WITH recorded AS (
    INSERT INTO loquat.events (id, kind, conversation_id)
    SELECT DISTINCT ON (id) (e->>'id')::uuid AS id, e->>'kind', (e->>'conversation_id')::uuid
    FROM jsonb_array_elements(events) AS v(e) WHERE e->>'kind' IN ('timer', 'schedule') ORDER BY id
    ON CONFLICT (id) DO NOTHING RETURNING id
  )
  SELECT coalesce(array_agg(id), '{}') INTO added FROM recorded;
  INSERT INTO loquat.automation_runs (event_id, automation_id, due_at, ordered_by)
  SELECT DISTINCT ON (event_id) (e->>'id')::uuid AS event_id, a.id, (e->'schedule'->>'due_at')::timestamptz, e->'schedule'->>'ordered_by'
  FROM jsonb_array_elements(events) AS v(e) JOIN loquat.system_automations AS a ON a.id = (e->'schedule'->>'automation_id')::uuid
  WHERE e->>'kind' = 'schedule' AND (e->>'id')::uuid = ANY (added) ORDER BY event_id
  ON CONFLICT DO NOTHING;
  DELETE FROM loquat.automation_runs AS n                   -- the last 1,000 of each are kept
  WHERE n.automation_id IN (SELECT m.automation_id FROM loquat.automation_runs AS m WHERE m.event_id = ANY (added))
    AND n.recorded_at < (SELECT o.recorded_at FROM loquat.automation_runs AS o WHERE o.automation_id = n.automation_id
                         ORDER BY o.recorded_at DESC OFFSET 1000 LIMIT 1);
  RETURN added;
END $$;

-- As in 0002, and what was timed: it belongs to no person, so conversation-log and bot-runner count it, whoever comes first.
CREATE FUNCTION loquat.record_inbound(events jsonb) RETURNS TABLE (event_id uuid, conversation_id uuid, fresh boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
#variable_conflict use_column
DECLARE added uuid[]; talk jsonb;
BEGIN
  IF NOT jsonb_path_exists(events, '$[*] ? (@.kind == "timer" || @.kind == "schedule")') THEN
    RETURN QUERY SELECT r.event_id, r.conversation_id, r.fresh FROM loquat.record_talk(events) AS r;
    RETURN;
  END IF;
  talk := jsonb_path_query_array(events, '$[*] ? (@.kind != "timer" && @.kind != "schedule")');
  IF talk <> '[]' THEN RETURN QUERY SELECT r.event_id, r.conversation_id, r.fresh FROM loquat.record_talk(talk) AS r; END IF;
  added := loquat.record_timed(events);
  RETURN QUERY SELECT x.id, x.conversation_id, x.id = ANY (added) FROM loquat.events AS x
               WHERE x.kind IN ('timer', 'schedule') AND x.id = ANY (ARRAY(SELECT (e->>'id')::uuid FROM jsonb_array_elements(events) AS v(e)));
END $$;

-- ---------------------------------------------------------------- what a result says
-- {"timers": [{"name", "at": text or null (cancelled), "data", "until_answer"}, ...], "sends": [{"contact_id", "type", "text", "content"}, ...]}; a
-- schedule's result has no replies but sends. Null: nothing is wrong with it.
CREATE FUNCTION loquat.flaw_of_timed(result jsonb) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE part jsonb; flaw text;
BEGIN
  IF jsonb_typeof(coalesce(result->'timers', '[]')) <> 'array' OR jsonb_array_length(result->'timers') > 20 THEN
    RETURN 'has timers that are not an array of at most 20';
  END IF;
  FOR part IN SELECT e FROM jsonb_array_elements(result->'timers') AS e LOOP
    IF jsonb_typeof(part) <> 'object' OR jsonb_typeof(part->'name') IS DISTINCT FROM 'string' OR length(part->>'name') NOT BETWEEN 1 AND 60 THEN
      RETURN 'has a timer whose name is not a text of 1 to 60 characters';
    END IF;
    IF jsonb_typeof(coalesce(part->'at', 'null')) NOT IN ('string', 'null') OR part->>'at' !~ '^20\d\d-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)$'
       OR NOT pg_input_is_valid(part->>'at', 'timestamptz') THEN
      RETURN 'has a timer whose time is no time with its zone';
    END IF;
    IF jsonb_typeof(coalesce(part->'until_answer', 'null')) NOT IN ('boolean', 'null') OR octet_length((part->'data')::text) > 16384 THEN
      RETURN 'has a timer with data of more than 16 KiB, or an until_answer that is not a boolean';
    END IF;
  END LOOP;
  IF jsonb_typeof(coalesce(result->'sends', '[]')) <> 'array' OR jsonb_array_length(result->'sends') > 500 THEN
    RETURN 'has sends that are not an array of at most 500';
  END IF;
  FOR part IN SELECT e FROM jsonb_array_elements(result->'sends') AS e LOOP
    flaw := loquat.flaw_of_result(jsonb_build_object('replies', jsonb_build_array(part)));
    IF flaw IS NOT NULL THEN RETURN flaw; END IF;
    IF jsonb_typeof(part->'contact_id') IS DISTINCT FROM 'string' OR NOT pg_input_is_valid(part->>'contact_id', 'uuid') THEN
      RETURN 'has a send to what is no contact';
    END IF;
  END LOOP;
  RETURN NULL;
END $$;

ALTER FUNCTION loquat.check_result(jsonb) RENAME TO check_talk;
CREATE FUNCTION loquat.check_result(result jsonb) RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE flaw text;
BEGIN
  PERFORM loquat.check_talk(result);
  IF result ? 'timers' OR result ? 'sends' THEN flaw := loquat.flaw_of_timed(result); END IF;
  IF flaw IS NOT NULL THEN RAISE EXCEPTION 'the result %', flaw USING ERRCODE = 'LQ001'; END IF;
END $$;

-- Called off, as far as the row goes: the index is told with the next event that ends.
CREATE FUNCTION loquat.call_off(conversation uuid, names text[], only_until_answer boolean) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  UPDATE loquat.timers AS t SET due_at = NULL, data = NULL, armed = false, updated_at = now()
  WHERE t.conversation_id = call_off.conversation AND t.due_at IS NOT NULL AND (names IS NULL OR t.name = ANY (names))
    AND (t.until_answer OR NOT only_until_answer);
END;

-- Sooner than a second or later than 366 days is neither; of more than 50 in one conversation those beyond are not set (the SDK refuses them).
CREATE FUNCTION loquat.set_timers(conversation uuid, given jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE now_at constant bigint := (SELECT v.version FROM public.conversations AS v WHERE v.id = conversation);
BEGIN
  PERFORM loquat.call_off(conversation, ARRAY(SELECT e->>'name' FROM jsonb_array_elements(given) AS e WHERE e->>'at' IS NULL), false);
  INSERT INTO loquat.timers AS t (id, conversation_id, name, due_at, data, until_answer, version, event_id)
  SELECT g.id, set_timers.conversation, g.name, least(greatest(g.at, now() + interval '1 second'), now() + interval '366 days'), nullif(g.data, 'null'),
         coalesce(g.until_answer, false), now_at, loquat.firing_id(g.id, now_at)
  FROM (SELECT DISTINCT ON (e.name) uuidv7() AS id, e.* FROM jsonb_to_recordset(given) AS e(name text, at timestamptz, data jsonb, until_answer boolean)
        WHERE e.at IS NOT NULL ORDER BY e.name) AS g
  WHERE (SELECT count(*) FROM loquat.timers AS k WHERE k.conversation_id = set_timers.conversation AND k.due_at IS NOT NULL) < 50
     OR EXISTS (SELECT FROM loquat.timers AS k WHERE (k.conversation_id, k.name) = (set_timers.conversation, g.name))
  ON CONFLICT (conversation_id, name) DO UPDATE
    SET due_at = excluded.due_at, data = excluded.data, until_answer = excluded.until_answer, version = excluded.version,
        event_id = loquat.firing_id(t.id, excluded.version), armed = false, updated_at = now();
END $$;

-- As before, and its timers. What a program sent in a schedule's name is not a person's.
ALTER FUNCTION loquat.apply_result(loquat.events, loquat.results) RENAME TO apply_talk;
CREATE FUNCTION loquat.apply_result(x loquat.events, r loquat.results) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM loquat.apply_talk(x, r);
  IF x.kind = 'order' AND r.result->>'sender' = 'automation' THEN
    UPDATE public.messages AS m SET sender = 'automation' FROM loquat.outbox AS o WHERE o.event_id = x.id AND m.id = o.message_id;
  END IF;
  IF x.kind = 'timer' THEN DELETE FROM loquat.timers AS t WHERE t.event_id = x.id;
  ELSIF x.kind = 'message' AND EXISTS (SELECT FROM loquat.timers AS t WHERE t.conversation_id = r.conversation_id AND t.until_answer AND t.due_at IS NOT NULL) THEN
    PERFORM loquat.call_off(r.conversation_id, NULL, true); -- it began otherwise than by begin_run
  END IF;
  IF jsonb_typeof(r.result->'timers') = 'array' AND x.kind <> 'order' AND NOT coalesce((r.result->>'end')::boolean, false) THEN
    PERFORM loquat.set_timers(r.conversation_id, r.result->'timers');
  END IF;
END $$;

-- Whoever closes a conversation, its timers are called off.
CREATE FUNCTION loquat.on_close() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM loquat.call_off(NEW.id, NULL, false);
  RETURN NULL;
END $$;
CREATE TRIGGER on_close AFTER UPDATE OF status ON public.conversations
  FOR EACH ROW WHEN (NEW.status = 'closed' AND OLD.status <> 'closed') EXECUTE FUNCTION loquat.on_close();

-- ---------------------------------------------------------------- a run
-- What to do with a schedule's event. `x` is its row.
CREATE FUNCTION loquat.begin_schedule(x loquat.events, hold text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF x.outcome IS NOT NULL THEN RETURN 'done'; END IF;
  IF EXISTS (SELECT FROM loquat.results AS s WHERE s.event_id = x.id) THEN RETURN 'recorded'; END IF;
  IF hold IS NULL AND NOT EXISTS (SELECT FROM loquat.automation_runs AS n JOIN loquat.system_automations AS a ON a.id = n.automation_id
                                  WHERE n.event_id = x.id AND a.declared AND (a.active OR n.ordered_by IS NOT NULL)) THEN
    hold := 'discarded';                                    -- turned off, or not in the code any more
  END IF;
  IF hold IS NOT NULL THEN
    UPDATE loquat.events AS e SET outcome = hold, finished_at = now() WHERE e.id = x.id AND e.outcome IS NULL;
    RETURN 'held';
  END IF;
  UPDATE loquat.events AS e SET opened_at = now() WHERE e.id = x.id AND e.opened_at IS NULL;
  RETURN 'run';
END $$;

-- As in 0003, and what was timed. A timer that was called off, moved, or is of a conversation that is closed is discarded. A contact's message calls
-- off the timers that wait for it, at its turn: so it is later than whatever set them.
CREATE OR REPLACE FUNCTION loquat.begin_run(event jsonb, hold text DEFAULT NULL)
RETURNS TABLE (todo text, conversation_id uuid, contact_id uuid, state text, version bigint, blocked_by uuid, outbox jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  this constant uuid := (event->>'id')::uuid;
  x loquat.events; c public.conversations; r loquat.results;
BEGIN
  IF hold NOT IN ('held', 'expired', 'discarded') THEN
    RAISE EXCEPTION 'hold is held, expired or discarded, not %', hold USING ERRCODE = '22023';
  END IF;
  SELECT * INTO x FROM loquat.events AS e WHERE e.id = this;
  IF NOT FOUND THEN
    PERFORM loquat.record_inbound(jsonb_build_array(event));
    SELECT * INTO STRICT x FROM loquat.events AS e WHERE e.id = this;
  END IF;
  IF x.kind = 'update' THEN                                 -- recorded, nothing to run
    UPDATE loquat.events AS e SET outcome = coalesce(hold, 'handled'), finished_at = now() WHERE e.id = x.id AND e.outcome IS NULL;
    todo := 'done';
    RETURN NEXT; RETURN;
  ELSIF x.kind = 'schedule' THEN
    todo := loquat.begin_schedule(x, hold); version := 0;
    RETURN NEXT; RETURN;
  END IF;
  SELECT * INTO c FROM public.conversations AS v WHERE v.id = x.conversation_id;
  IF x.kind = 'timer' AND x.outcome IS NULL AND NOT EXISTS (SELECT FROM loquat.results AS s WHERE s.event_id = x.id)
     AND (c.status IS DISTINCT FROM 'open' OR NOT EXISTS (SELECT FROM loquat.timers AS t WHERE t.event_id = x.id AND t.due_at IS NOT NULL)) THEN
    UPDATE loquat.events AS e SET outcome = 'discarded', finished_at = now() WHERE e.id = x.id AND e.outcome IS NULL;
    todo := 'held'; conversation_id := c.id; outbox := loquat.outbox_of(x.id);
    RETURN NEXT; RETURN;
  END IF;
  IF c.status = 'closed' AND x.kind <> 'timer' AND x.outcome IS NULL AND hold IS NULL
     AND NOT EXISTS (SELECT FROM loquat.results AS s WHERE s.event_id = x.id) THEN
    x.conversation_id := loquat.move_to_open(x.id);
    SELECT * INTO STRICT c FROM public.conversations AS v WHERE v.id = x.conversation_id;
  END IF;
  conversation_id := c.id; contact_id := c.contact_id; state := c.state; version := c.version;

  SELECT * INTO r FROM loquat.results AS s WHERE s.conversation_id = c.id AND s.version = c.version;
  IF r.event_id = x.id THEN todo := 'recorded';             -- before the marker: a bot that froze may commit its result after 'held'
  ELSIF x.outcome IS NOT NULL THEN todo := 'done'; outbox := loquat.outbox_of(x.id);
  ELSIF r.event_id IS NOT NULL THEN todo := 'blocked'; blocked_by := r.event_id;
  ELSIF hold IS NOT NULL OR c.holder <> 'bot' AND x.kind IN ('message', 'timer') THEN
    UPDATE loquat.events AS e SET outcome = coalesce(hold, 'held'), finished_at = now() WHERE e.id = x.id AND e.outcome IS NULL;
    todo := 'held';
  ELSE
    UPDATE loquat.events AS e SET opened_at = now() WHERE e.id = x.id AND e.opened_at IS NULL;
    todo := 'run';
  END IF;
  IF todo IN ('run', 'held') AND x.kind = 'message'
     AND EXISTS (SELECT FROM loquat.timers AS t WHERE t.conversation_id = c.id AND t.until_answer AND t.due_at IS NOT NULL) THEN
    PERFORM loquat.call_off(c.id, NULL, true);
  ELSIF todo = 'held' AND x.kind = 'timer' THEN
    DELETE FROM loquat.timers AS t WHERE t.event_id = x.id;
  END IF;
  RETURN NEXT;
END $$;

-- As in 0007, and of what was timed. A schedule's result fences itself alone: its conversation is its event.
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
  SELECT coalesce(e.conversation_id, e.id) INTO conversation
  FROM loquat.events AS e LEFT JOIN public.conversations AS c ON c.id = e.conversation_id
  WHERE e.id = event AND e.kind IN ('message', 'timer', 'schedule') AND e.opened_at IS NOT NULL AND e.outcome IS NULL
    AND CASE e.kind WHEN 'schedule' THEN 0 ELSE c.version END = record_result.version;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the event is not open at this version' USING ERRCODE = 'LQ003';
  END IF;
  PERFORM pg_stat_force_next_flush();                       -- also when this transaction is rolled back: the next one counts from zero
  -- Both unique keys fence: a second run of this event, and a run of another event of this conversation at the same version. They hold
  -- whatever isolation level or old snapshot the tenant chose. The loser sees unique_violation and rolls back; the runner begins again.
  INSERT INTO loquat.results (event_id, conversation_id, version, result, touched)
  VALUES (event, conversation, record_result.version, result, loquat.touched_here());
END $$;

-- The end of a schedule's event, once. A stored result wins over the argument.
CREATE FUNCTION loquat.commit_schedule(event uuid, result jsonb) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE x loquat.events;
BEGIN
  SELECT * INTO STRICT x FROM loquat.events AS e WHERE e.id = event FOR NO KEY UPDATE;
  IF x.outcome = 'handled' THEN RETURN 'done'; END IF;
  IF x.outcome IS NULL AND result IS NOT NULL THEN
    PERFORM loquat.check_result(result);
    INSERT INTO loquat.results (event_id, conversation_id, version, result) VALUES (event, event, 0, result) ON CONFLICT DO NOTHING;
  END IF;
  IF NOT EXISTS (SELECT FROM loquat.results AS s WHERE s.event_id = event) THEN
    RETURN CASE WHEN x.outcome IS NULL THEN 'superseded' ELSE 'done' END;
  END IF;
  UPDATE loquat.events AS e SET outcome = 'handled', finished_at = now() WHERE e.id = event;
  RETURN 'committed';
END $$;

-- As in 0009, and of schedules.
CREATE OR REPLACE FUNCTION loquat.commit_run(event uuid, expected_version bigint DEFAULT NULL, result jsonb DEFAULT NULL)
RETURNS TABLE (status text, outbox jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
#variable_conflict use_column
DECLARE x loquat.events; c public.conversations; r loquat.results;
BEGIN
  SELECT * INTO x FROM loquat.events AS e WHERE e.id = event AND e.kind <> 'update';
  IF NOT FOUND THEN RAISE EXCEPTION 'unknown event' USING ERRCODE = 'LQ004'; END IF;
  IF x.kind = 'schedule' THEN
    status := loquat.commit_schedule(event, result);
    RETURN NEXT; RETURN;
  END IF;
  PERFORM loquat.lock_noted(x, result);
  SELECT * INTO STRICT c FROM public.conversations AS v WHERE v.id = x.conversation_id FOR NO KEY UPDATE;
  SELECT * INTO STRICT x FROM loquat.events AS e WHERE e.id = event FOR NO KEY UPDATE;

  SELECT * INTO r FROM loquat.results AS s WHERE s.event_id = event;
  IF r.event_id IS NULL AND x.outcome IS NULL AND result IS NOT NULL AND expected_version = c.version AND x.conversation_id = c.id THEN
    PERFORM loquat.check_result(result);
    -- Waits for a bot's open transaction on the same event or version, at most lock_timeout.
    INSERT INTO loquat.results (event_id, conversation_id, version, result) VALUES (event, c.id, c.version, result) ON CONFLICT DO NOTHING;
    SELECT * INTO r FROM loquat.results AS s WHERE s.event_id = event;
  END IF;

  IF r.version = c.version AND r.conversation_id = c.id THEN    -- a result at the present version is applied, whatever the marker says; older ones have been
    PERFORM loquat.apply_result(x, r);
    status := 'committed';
  ELSE
    status := CASE WHEN x.outcome IS NULL THEN 'superseded' ELSE 'done' END;
  END IF;
  outbox := loquat.outbox_of(commit_run.event);
  RETURN NEXT;
END $$;

-- The addresses of a contact as a message to him names them: the first one names his lane.
CREATE FUNCTION loquat.addresses_of(contact uuid) RETURNS jsonb LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_agg(jsonb_build_object('kind', a.kind, 'value', a.value)
                            ORDER BY array_position(ARRAY['user_id', 'wa_id', 'phone', 'username'], a.kind), a.value), '[]')
  FROM loquat.addresses AS a WHERE a.contact_id = contact
$$;

-- Timers of which the index must be told: those of the event's conversation, and leftovers of others, which a crash of long ago may have left.
CREATE FUNCTION loquat.unarmed(event uuid) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE conversation constant uuid := (SELECT e.conversation_id FROM loquat.events AS e WHERE e.id = event);
BEGIN
  RETURN (SELECT jsonb_agg(jsonb_build_object('timer_id', t.id, 'version', t.version, 'event_id', t.event_id, 'due_at', t.due_at, 'name', t.name,
                   'conversation_id', t.conversation_id, 'contact_id', c.contact_id, 'addresses', loquat.addresses_of(c.contact_id)))
          FROM (SELECT * FROM loquat.timers AS u
                WHERE NOT u.armed AND (u.conversation_id = conversation OR u.updated_at < now() - interval '1 minute') ORDER BY u.updated_at LIMIT 100) AS t
          JOIN public.conversations AS c ON c.id = t.conversation_id);
END $$;

-- What a schedule says to contacts: [{"order_id", "contact_id", "number_id", "addresses", "message"}, ...]; number_id is null where a contact is not
-- known or has never written. Null: nothing, or it was ordered already.
CREATE FUNCTION loquat.sends_of(event uuid) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT jsonb_agg(jsonb_build_object('order_id', loquat.reply_id(event, n::int), 'contact_id', s->'contact_id', 'number_id', v.number_id,
                   'addresses', loquat.addresses_of(coalesce(k.merged_into, k.id)),
                   'message', jsonb_build_object('type', s->'type', 'text', s->'text', 'content', s->'content')) ORDER BY n)
          FROM loquat.results AS r, jsonb_array_elements(coalesce(nullif(r.result->'sends', 'null'), '[]')) WITH ORDINALITY AS a(s, n)
          LEFT JOIN public.contacts AS k ON k.id = (s->>'contact_id')::uuid
          LEFT JOIN LATERAL (SELECT c.number_id FROM public.conversations AS c WHERE c.contact_id = coalesce(k.merged_into, k.id)
                             ORDER BY c.status = 'open' DESC, c.opened_at DESC LIMIT 1) AS v ON true
          WHERE r.event_id = event);
END $$;

-- Besides what begin_run and commit_run answer. Before a run: {"timers": [names that are set]}, of a timer "fired": {"data"} and "number_id" besides; after it, and of an event that is over:
-- {"arm": [...], "send": [...]}, null if that is nothing. Looks at what the same statement has done.
CREATE FUNCTION loquat.timed_of(event uuid, todo text) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE x loquat.events;
BEGIN
  SELECT * INTO x FROM loquat.events AS e WHERE e.id = event;
  IF x.kind = 'schedule' THEN
    RETURN CASE WHEN todo <> 'run' THEN jsonb_build_object('send', loquat.sends_of(event)) END;
  ELSIF todo <> 'run' THEN
    RETURN CASE WHEN EXISTS (SELECT FROM loquat.timers AS t WHERE NOT t.armed) THEN jsonb_build_object('arm', loquat.unarmed(event)) END;
  ELSIF x.kind = 'message' THEN
    RETURN jsonb_build_object('timers', ARRAY(SELECT t.name FROM loquat.timers AS t WHERE t.conversation_id = x.conversation_id AND t.due_at IS NOT NULL));
  END IF;
  RETURN (SELECT jsonb_build_object('number_id', c.number_id,
                   'timers', ARRAY(SELECT t.name FROM loquat.timers AS t WHERE t.conversation_id = c.id AND t.due_at IS NOT NULL AND t.event_id <> event),
                   'fired', (SELECT jsonb_build_object('data', t.data) FROM loquat.timers AS t WHERE t.event_id = event))
          FROM public.conversations AS c WHERE c.id = x.conversation_id);
END $$;

-- After the index knows: [{"timer_id", "version", "due_at"}, ...] as they were given. What has changed meanwhile stays as it is.
CREATE FUNCTION loquat.timers_armed(timers jsonb) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s'
BEGIN ATOMIC
  DELETE FROM loquat.timers AS t USING jsonb_to_recordset(timers) AS g(timer_id uuid, version bigint, due_at timestamptz)
  WHERE t.id = g.timer_id AND t.version = g.version AND t.due_at IS NULL AND g.due_at IS NULL;
  UPDATE loquat.timers AS t SET armed = true FROM jsonb_to_recordset(timers) AS g(timer_id uuid, version bigint, due_at timestamptz)
  WHERE t.id = g.timer_id AND t.version = g.version AND t.due_at = g.due_at;
END;

-- After the orders are durable on the bus.
CREATE FUNCTION loquat.clear_sends(event uuid) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC UPDATE loquat.results AS r SET result = r.result - 'sends' WHERE r.event_id = clear_sends.event AND r.result ? 'sends'; END;

-- As in 0009; a schedule has no contact.
CREATE OR REPLACE FUNCTION loquat.contact_at_work(event uuid) RETURNS uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE contact uuid;
BEGIN
  IF session_user IS DISTINCT FROM (SELECT i.bot_login FROM loquat.identity AS i) THEN
    RAISE EXCEPTION 'this is for bot code' USING ERRCODE = 'LQ002';
  END IF;
  SELECT c.contact_id INTO contact FROM loquat.events AS e LEFT JOIN public.conversations AS c ON c.id = e.conversation_id
  WHERE e.id = contact_at_work.event AND e.kind NOT IN ('order', 'update') AND e.opened_at IS NOT NULL AND e.outcome IS NULL;
  IF NOT FOUND THEN RAISE EXCEPTION 'the event is not open' USING ERRCODE = 'LQ003'; END IF;
  RETURN contact;
END $$;

-- ---------------------------------------------------------------- schedules
-- Makes the rows what the deployed code declares: [{"name", "schedule", "handler", "tz", "catch_up"}, ...]; whether one is on stays.
CREATE FUNCTION loquat.sync_automations(given jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE bot constant uuid := loquat.this_bot();
BEGIN
  UPDATE loquat.system_automations AS a SET declared = false, updated_at = now()
  WHERE a.declared AND NOT EXISTS (SELECT FROM jsonb_array_elements(given) AS e WHERE e->>'name' = a.name);
  INSERT INTO loquat.system_automations AS a (bot_id, name, schedule, script, tz, catch_up)
  SELECT bot, g.name, g.schedule, g.handler, g.tz, g.catch_up
  FROM jsonb_to_recordset(given) AS g(name text, schedule text, handler text, tz text, catch_up text) ORDER BY g.name
  ON CONFLICT (bot_id, name) DO UPDATE
    SET schedule = excluded.schedule, script = excluded.script, tz = excluded.tz, catch_up = excluded.catch_up, declared = true, updated_at = now()
    WHERE (a.schedule, a.script, a.tz, a.catch_up, a.declared) IS DISTINCT FROM (excluded.schedule, excluded.script, excluded.tz, excluded.catch_up, true);
END $$;

CREATE FUNCTION loquat.automations() RETURNS TABLE (id uuid, name text, schedule text, handler text, tz text, catch_up text, active boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT a.id, a.name, a.schedule, a.script, a.tz, a.catch_up, a.active FROM loquat.system_automations AS a WHERE a.declared ORDER BY a.name;
END;

CREATE FUNCTION loquat.turn_automation(automation uuid, active boolean) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
BEGIN
  UPDATE loquat.system_automations AS a SET active = turn_automation.active, updated_at = now() WHERE a.id = automation AND a.declared;
  RETURN FOUND;
END $$;

-- Newest first, at most 200.
CREATE FUNCTION loquat.automation_history(automation uuid, most int)
RETURNS TABLE (event_id uuid, due_at timestamptz, ordered_by text, recorded_at timestamptz, finished_at timestamptz, outcome text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT n.event_id, n.due_at, n.ordered_by, n.recorded_at, e.finished_at, e.outcome
  FROM loquat.automation_runs AS n JOIN loquat.events AS e ON e.id = n.event_id
  WHERE n.automation_id = automation ORDER BY n.recorded_at DESC, n.due_at DESC LIMIT least(most, 200);
END;

-- As in 0006, and no timer: nothing of the past is done again. Schedules are on where it is the same project.
CREATE OR REPLACE FUNCTION loquat.renew_project(project text, epoch bigint, home name, former name DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE leaver constant name := former || '_owner'; t regclass;
BEGIN
  UPDATE loquat.identity AS i SET project = renew_project.project, epoch = renew_project.epoch, bot_login = home || '_bot', opened_at = now()
  WHERE i.epoch < renew_project.epoch;
  IF NOT FOUND THEN RETURN false; END IF;
  -- Whether it went out after the copy was made nobody here knows. A receipt that comes says more.
  UPDATE public.messages AS m SET status = 'unknown', transitions = m.transitions || jsonb_build_object('unknown', now())
  FROM loquat.outbox AS o WHERE m.id = o.message_id AND m.status = 'queued';
  DELETE FROM loquat.outbox;
  -- A result at a conversation's present version would be applied with the next event.
  DELETE FROM loquat.results AS r USING public.conversations AS c WHERE (r.conversation_id, r.version) = (c.id, c.version);
  UPDATE loquat.events AS e SET outcome = 'discarded', finished_at = now() WHERE e.outcome IS NULL;
  DELETE FROM loquat.timers;
  IF former IS NOT NULL THEN
    UPDATE loquat.system_automations AS a SET active = false, updated_at = now() WHERE a.active;
  END IF;
  IF to_regrole(quote_ident(leaver)) IS NOT NULL THEN
    EXECUTE format('REVOKE ALL ON SCHEMA public, loquat FROM %I', leaver);
    EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA loquat FROM %I', leaver);
    FOR t IN SELECT oid FROM pg_class WHERE relowner = 'loquat_system'::regrole AND relkind IN ('r', 'v', 'S') AND relnamespace IN
             ('public'::regnamespace, 'loquat'::regnamespace) LOOP
      EXECUTE format('REVOKE ALL ON %s FROM %I', t, leaver);
    END LOOP;
  END IF;
  RETURN true;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA loquat FROM PUBLIC;
GRANT EXECUTE ON FUNCTION loquat.record_inbound TO loquat_conversation_log, loquat_bot_runner;
GRANT EXECUTE ON FUNCTION loquat.timed_of, loquat.timers_armed, loquat.clear_sends, loquat.sync_automations, loquat.automations, loquat.turn_automation,
  loquat.automation_history TO loquat_bot_runner;
