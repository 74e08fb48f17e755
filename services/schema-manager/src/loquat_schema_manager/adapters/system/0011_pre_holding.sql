-- Who holds a conversation, what follows when a bot fails, questions that wait for an answer. The rules stand at the head of 0002; rows of asks and
-- failures are locked after results.
--
-- The holder moves with the conversation's version alone, so who held it when a run began still does when the run's result is applied. One change is
-- not fenced: a hold whose time is over is the bot's again. That needs no timer and goes one way only: `held_until` is compared wherever it is asked.

ALTER TABLE public.conversations                            -- holder: 'bot', 'person' (holder_id), 'people' (nobody yet), 'phone' (the phone app)
  ADD COLUMN holder_id       text,
  ADD COLUMN held_since      timestamptz,
  ADD COLUMN held_until      timestamptz,                   -- null: until somebody hands it back
  ADD COLUMN hold_note       text,
  ADD COLUMN needs_attention boolean NOT NULL DEFAULT false,
  ADD COLUMN attention_since timestamptz,
  ADD COLUMN attention_event uuid,                          -- the message that the bot failed at
  ADD COLUMN attention_run   uuid;                          -- its last run
CREATE INDEX conversations_held__lq ON public.conversations (opened_at DESC, id DESC) WHERE holder <> 'bot';
CREATE INDEX conversations_needs_attention__lq ON public.conversations (opened_at DESC, id DESC) WHERE needs_attention;

ALTER TABLE loquat.bots ADD COLUMN settings jsonb NOT NULL DEFAULT '{}';

-- A handler's question that its contact has not answered: the SDK's own notes, handed to the next message's call.
CREATE TABLE loquat.asks (
    conversation_id uuid        NOT NULL PRIMARY KEY,       -- no foreign key: nothing here locks a system row for long
    ask             jsonb       NOT NULL,
    expires_at      timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now()
);

-- Events that ended dead, whose consequences are true: once, however often the runner is cut off before it has put them aside.
CREATE TABLE loquat.failures (
    event_id   uuid        NOT NULL PRIMARY KEY,
    times      int         NOT NULL,                        -- more than once: it was redriven and failed again
    run        uuid,
    kind       text        NOT NULL,                        -- of the failure; its words are in the run, without secrets
    updated_at timestamptz NOT NULL DEFAULT now()
);

DO $$
BEGIN
  REVOKE USAGE ON TYPE loquat.asks, loquat.failures FROM PUBLIC;
END $$;

CREATE INDEX ON loquat.events (conversation_id) WHERE outcome IS NULL;    -- what follows a message

-- ---------------------------------------------------------------- settings
-- on_failure: 'silent', 'apologise', 'hand_over'; stale_after and phone_hold in seconds.
CREATE FUNCTION loquat.settings() RETURNS jsonb LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT '{"on_failure": "silent", "apology": null, "stale_after": 86400, "take_over": false, "phone_hold": 86400, "join_texts": false}'::jsonb
         || coalesce((SELECT b.settings FROM loquat.bots AS b), '{}')
$$;

CREATE FUNCTION loquat.change_settings(settings jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE bot constant uuid := loquat.this_bot();
BEGIN
  IF (jsonb_typeof(change_settings.settings) = 'object' AND octet_length(change_settings.settings::text) <= 16384) IS NOT TRUE THEN
    RAISE EXCEPTION 'settings are an object of at most 16 KiB' USING ERRCODE = 'LQ005';
  END IF;
  UPDATE loquat.bots AS b SET settings = change_settings.settings, updated_at = now() WHERE b.id = bot;
  RETURN loquat.settings();
END $$;

-- ---------------------------------------------------------------- the holder
CREATE FUNCTION loquat.is_held(holder text, held_until timestamptz) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
RETURN holder <> 'bot' AND (held_until IS NULL OR held_until > now());

-- The caller has locked the conversation and moves its version. Who is taken over from mid-question is not asked again.
CREATE FUNCTION loquat.set_holder(conversation uuid, kind text, who text, seconds double precision, note text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE public.conversations AS v
  SET holder = kind, holder_id = CASE WHEN kind <> 'bot' THEN who END,
      held_since = CASE WHEN kind = 'bot' THEN NULL WHEN (v.holder, v.holder_id) IS NOT DISTINCT FROM (kind, who) THEN coalesce(v.held_since, now()) ELSE now() END,
      held_until = CASE WHEN kind <> 'bot' THEN now() + make_interval(secs => seconds) END,
      hold_note = CASE WHEN kind <> 'bot' THEN note END
  WHERE v.id = conversation;
  IF kind <> 'bot' THEN DELETE FROM loquat.asks AS a WHERE a.conversation_id = conversation; END IF;
END $$;

-- {"conversation_id", "state", "version", "holder", "holder_id", "held_until", "needs_attention"} of an event's conversation, after what the same
-- statement has done.
CREATE FUNCTION loquat.holder_of(event uuid) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT jsonb_build_object('conversation_id', c.id, 'state', c.state, 'version', c.version, 'holder', CASE WHEN loquat.is_held(c.holder, c.held_until) THEN c.holder ELSE 'bot' END, 'holder_id', CASE WHEN loquat.is_held(c.holder, c.held_until) THEN c.holder_id END,
                   'held_until', CASE WHEN loquat.is_held(c.holder, c.held_until) THEN c.held_until END, 'needs_attention', c.needs_attention)
          FROM loquat.events AS e JOIN public.conversations AS c ON c.id = e.conversation_id WHERE e.id = event);
END $$;

-- ---------------------------------------------------------------- what a result says of both
-- {"hold": {"seconds", "note"}} hands a conversation over to people; an order's may name {"kind", "who"} besides, and "resolved"; {"ask": {..., "seconds"}}
-- waits for an answer. Null: nothing is wrong with it.
CREATE FUNCTION loquat.flaw_of_hold(result jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE h constant jsonb := coalesce(nullif(result->'hold', 'null'), '{}'); a constant jsonb := coalesce(nullif(result->'ask', 'null'), '{}');
BEGIN
  IF jsonb_typeof(h) <> 'object' OR jsonb_typeof(a) <> 'object' THEN RETURN 'has a hold or an ask that is not an object'; END IF;
  IF (coalesce(h->>'kind', 'people') IN ('bot', 'person', 'people')) IS NOT TRUE OR length(h->>'who') > 200 OR length(h->>'note') > 1000 THEN
    RETURN 'has a hold by nobody who can hold a conversation, or with a note of more than 1000 characters';
  END IF;
  IF octet_length(a::text) > 65536 THEN RETURN 'has an ask of more than 64 KiB'; END IF;
  IF jsonb_typeof(coalesce(h->'seconds', 'null')) NOT IN ('number', 'null') OR jsonb_typeof(coalesce(a->'seconds', 'null')) NOT IN ('number', 'null') THEN
    RETURN 'has a hold or an ask for what is no number of seconds';
  END IF;
  IF (h->>'seconds')::numeric NOT BETWEEN 1 AND 31622400 OR (a->>'seconds')::numeric NOT BETWEEN 1 AND 31622400 THEN
    RETURN 'has a hold or an ask for less than a second or more than 366 days';
  END IF;
  RETURN NULL;
END $$;

ALTER FUNCTION loquat.check_result(jsonb) RENAME TO check_timed;
CREATE FUNCTION loquat.check_result(result jsonb) RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE flaw text;
BEGIN
  PERFORM loquat.check_timed(result);
  IF result ? 'hold' OR result ? 'ask' THEN flaw := loquat.flaw_of_hold(result); END IF;
  IF flaw IS NOT NULL THEN RAISE EXCEPTION 'the result %', flaw USING ERRCODE = 'LQ001'; END IF;
END $$;

-- As before, and the holder and the question. Of a message in a conversation that somebody holds it is an observer's: what it noted stands, and it says
-- nothing. The message that the conversation was handed over for may be tried again by people: then it is the bot's once more.
ALTER FUNCTION loquat.apply_result(loquat.events, loquat.results) RENAME TO apply_timed;
CREATE FUNCTION loquat.apply_result(x loquat.events, r loquat.results) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE c public.conversations; h constant jsonb := nullif(r.result->'hold', 'null'); again boolean;
BEGIN
  SELECT * INTO STRICT c FROM public.conversations AS v WHERE v.id = r.conversation_id;
  again := c.needs_attention AND c.attention_event = x.id;
  IF x.kind <> 'order' AND loquat.is_held(c.holder, c.held_until) AND NOT (again AND c.holder = 'people') THEN
    r.result := r.result - ARRAY['replies', 'state', 'end', 'timers', 'sends'];
    PERFORM loquat.apply_timed(x, r);
    UPDATE loquat.events AS e SET outcome = 'held' WHERE e.id = x.id;
    RETURN;
  END IF;
  PERFORM loquat.apply_timed(x, r);
  IF x.kind = 'message' AND jsonb_typeof(r.result->'joins') = 'array' THEN
    UPDATE loquat.events AS e SET outcome = 'handled', finished_at = now()
    WHERE e.id = ANY (ARRAY(SELECT loquat.as_uuid(j) FROM jsonb_array_elements_text(r.result->'joins') AS j LIMIT 50)) AND e.id <> x.id
      AND e.conversation_id = c.id AND e.kind = 'message' AND e.outcome IS NULL;
  END IF;
  IF jsonb_typeof(h) = 'object' THEN
    PERFORM loquat.set_holder(c.id, CASE WHEN x.kind = 'order' THEN coalesce(h->>'kind', 'people') ELSE 'people' END,
                              CASE WHEN x.kind = 'order' THEN h->>'who' END, (h->>'seconds')::double precision, h->>'note');
  ELSIF again AND c.holder = 'people' THEN
    PERFORM loquat.set_holder(c.id, 'bot', NULL, NULL, NULL);
  END IF;
  IF again OR x.kind = 'order' AND c.needs_attention AND (r.result->>'resolved')::boolean THEN
    UPDATE public.conversations AS v SET needs_attention = false, attention_since = NULL, attention_event = NULL, attention_run = NULL WHERE v.id = c.id;
  END IF;
  IF jsonb_typeof(r.result->'ask') = 'object' AND x.kind <> 'order' AND h IS NULL AND NOT coalesce((r.result->>'end')::boolean, false) THEN
    INSERT INTO loquat.asks AS a (conversation_id, ask, expires_at)
    VALUES (c.id, r.result->'ask', now() + make_interval(secs => (r.result->'ask'->>'seconds')::double precision))
    ON CONFLICT (conversation_id) DO UPDATE SET ask = excluded.ask, expires_at = excluded.expires_at, created_at = now();
  ELSIF x.kind = 'message' THEN
    DELETE FROM loquat.asks AS a WHERE a.conversation_id = c.id;
  END IF;
END $$;

-- ---------------------------------------------------------------- a run
-- What is answered besides begin_run's columns is asked of the same statement: settings(), and ask_of(conversation).
CREATE FUNCTION loquat.ask_of(conversation uuid) RETURNS jsonb LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT a.ask FROM loquat.asks AS a WHERE a.conversation_id = conversation AND (a.expires_at IS NULL OR a.expires_at > now())
$$;

-- How long ago a message came, and which came after it and have no outcome: {"ago": seconds, "more": [{"id", "type", "text", "content", "wamid",
-- "reply_to", "ago"}, ...]}, at most 20. What one batch recorded is in the order of the senders' seconds.
CREATE FUNCTION loquat.following(event uuid) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE x loquat.events;
BEGIN
  SELECT * INTO STRICT x FROM loquat.events AS e WHERE e.id = event;
  RETURN jsonb_build_object('ago', extract(epoch FROM clock_timestamp() - x.recorded_at), 'more', (
    SELECT jsonb_agg(jsonb_build_object('id', f.id, 'type', f.type, 'text', f.text, 'content', f.content, 'wamid', f.wamid, 'reply_to', f.reply_to,
                                        'ago', extract(epoch FROM clock_timestamp() - f.came)) ORDER BY f.came, f.sent_at, f.id)
    FROM (SELECT m.*, e.recorded_at AS came FROM loquat.events AS e JOIN public.messages AS m ON m.id = e.id
          WHERE e.conversation_id = x.conversation_id AND e.outcome IS NULL AND e.kind = 'message' AND e.id <> x.id AND e.recorded_at >= x.recorded_at
            AND NOT EXISTS (SELECT FROM loquat.failures AS l WHERE l.event_id = e.id)
          ORDER BY e.recorded_at, m.sent_at, e.id LIMIT 20) AS f));
END $$;

-- The id under which the n-th failure of an event claims its version and apologises.
CREATE FUNCTION loquat.failure_id(event uuid, n int) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN loquat.reply_id(event, -1000 - n);

-- Somebody answered in the phone app: recorded as his message, and the conversation is his. Answers as begin_run does.
CREATE FUNCTION loquat.take_by_phone(event jsonb, OUT todo text, OUT conversation_id uuid, OUT contact_id uuid, OUT state text, OUT version bigint, OUT blocked_by uuid)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  this constant uuid := (event->>'id')::uuid;
  said constant jsonb := event->'message';
  x loquat.events; c public.conversations; claimed boolean;
BEGIN
  LOCK TABLE loquat.addresses IN ROW EXCLUSIVE MODE;        -- before all others, see 0008
  PERFORM loquat.lock_keys(ARRAY[event->>'id', said->>'wamid']);
  PERFORM loquat.record_inbound(jsonb_build_array(event));
  contact_id := (loquat.find_contacts(ARRAY[event]))[1];
  conversation_id := (loquat.find_conversations(ARRAY[contact_id], ARRAY[event->>'number_id']))[1];
  SELECT v.* INTO STRICT c FROM public.conversations AS v WHERE v.id = take_by_phone.conversation_id FOR NO KEY UPDATE;
  SELECT e.* INTO STRICT x FROM loquat.events AS e WHERE e.id = this FOR NO KEY UPDATE;
  state := c.state; version := c.version; todo := 'done';
  IF x.outcome IS NOT NULL THEN RETURN; END IF;
  INSERT INTO loquat.results (event_id, conversation_id, version, result) VALUES (this, c.id, c.version, '{}') ON CONFLICT DO NOTHING;
  claimed := FOUND;
  IF NOT claimed THEN
    todo := 'blocked';
    SELECT r.event_id INTO blocked_by FROM loquat.results AS r WHERE r.conversation_id = c.id AND r.version = c.version;
    RETURN;
  END IF;
  UPDATE public.conversations AS v SET version = v.version + 1 WHERE v.id = c.id;
  IF NOT (loquat.is_held(c.holder, c.held_until) AND c.holder = 'person') THEN  -- his hold may have no end, and does not get one by this
    PERFORM loquat.set_holder(c.id, 'phone', NULL, (loquat.settings()->>'phone_hold')::double precision, NULL);
  END IF;
  UPDATE loquat.events AS e SET outcome = 'handled', finished_at = now(), conversation_id = c.id WHERE e.id = this;
  PERFORM loquat.record_outbound(jsonb_build_array(said || jsonb_build_object('id', this, 'conversation_id', c.id, 'sender', 'person', 'status', 'sent')));
END $$;

-- begin_run, and before it what it does not know: how old a message may be, a hold that is over, a failure whose consequences are true already, and who
-- may see what a person holds. `age`: of a message, null if that is no matter. Answers two more things to do:
--   dead       it has failed before; outbox holds an apology that is still to be published
--   observe    a person holds the conversation: call the observer with state and version; its result says nothing
CREATE FUNCTION loquat.begin_event(event jsonb, hold text, age interval, redriven boolean, observes boolean)
RETURNS TABLE (todo text, conversation_id uuid, contact_id uuid, state text, version bigint, blocked_by uuid, outbox jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
#variable_conflict use_column
DECLARE
  this constant uuid := (event->>'id')::uuid;
  x loquat.events; c public.conversations; f loquat.failures; again boolean; stale boolean := coalesce(age > interval '1 minute', false);
BEGIN
  IF stale THEN stale := age > make_interval(secs => (loquat.settings()->>'stale_after')::double precision); END IF;
  IF event->>'kind' = 'update' AND hold IS NULL AND event->'update'->>'field' = 'smb_message_echoes' AND event ? 'message' THEN
    RETURN QUERY SELECT t.*, NULL::jsonb FROM loquat.take_by_phone(event) AS t;
    RETURN;
  END IF;
  IF hold = 'discarded' THEN
    UPDATE public.conversations AS v SET needs_attention = false, attention_since = NULL, attention_event = NULL, attention_run = NULL WHERE v.attention_event = this AND v.needs_attention;
  END IF;
  IF hold IS NULL AND event->>'kind' IN ('message', 'timer') THEN
    SELECT * INTO x FROM loquat.events AS e WHERE e.id = this;
    IF NOT FOUND THEN
      PERFORM loquat.record_inbound(jsonb_build_array(event));
      SELECT * INTO STRICT x FROM loquat.events AS e WHERE e.id = this;
    END IF;
    SELECT * INTO f FROM loquat.failures AS l WHERE l.event_id = this;
    SELECT * INTO c FROM public.conversations AS v WHERE v.id = x.conversation_id;
    IF f.event_id IS NOT NULL AND NOT redriven AND x.outcome IS NULL AND NOT EXISTS (SELECT FROM loquat.results AS s WHERE s.event_id = this) THEN
      RETURN QUERY SELECT 'dead', c.id, c.contact_id, c.state, c.version, NULL::uuid, loquat.outbox_of(loquat.failure_id(this, 1));
      RETURN;
    END IF;
    IF c.holder <> 'bot' AND NOT loquat.is_held(c.holder, c.held_until) THEN
      UPDATE public.conversations AS v SET holder = 'bot', holder_id = NULL, held_since = NULL, held_until = NULL, hold_note = NULL
      WHERE v.id = c.id AND v.version = c.version AND v.held_until <= now();
    ELSIF NOT stale AND c.holder <> 'bot' AND c.status = 'open' AND x.outcome IS NULL THEN
      again := redriven AND c.holder = 'people' AND c.needs_attention AND c.attention_event = this;
      IF (again OR observes AND x.kind = 'message') AND NOT EXISTS (SELECT FROM loquat.results AS s WHERE s.conversation_id = c.id AND s.version = c.version) THEN
        UPDATE loquat.events AS e SET opened_at = now() WHERE e.id = x.id AND e.opened_at IS NULL;
        RETURN QUERY SELECT CASE WHEN again THEN 'run' ELSE 'observe' END, c.id, c.contact_id, c.state, c.version, NULL::uuid, NULL::jsonb;
        RETURN;
      END IF;
    END IF;
  END IF;
  RETURN QUERY SELECT b.* FROM loquat.begin_run(event, CASE WHEN hold IS NULL AND stale THEN 'expired' ELSE hold END) AS b;
END $$;

-- A message, or a timer, at which the bot has failed for good: what the project wants to follow becomes true, once; the event stays open, for it may be redriven.
-- Answers 'failed' with the apology to publish, 'done' if it has an outcome, or 'superseded': begin again.
CREATE FUNCTION loquat.fail_event(event uuid, run uuid, kind text) RETURNS TABLE (status text, outbox jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
#variable_conflict use_column
DECLARE
  wanted constant jsonb := loquat.settings();
  x loquat.events; c public.conversations; nth int; failure uuid;
BEGIN
  SELECT * INTO x FROM loquat.events AS e WHERE e.id = event AND e.kind IN ('message', 'timer');
  IF NOT FOUND THEN RAISE EXCEPTION 'unknown event' USING ERRCODE = 'LQ004'; END IF;
  SELECT * INTO STRICT c FROM public.conversations AS v WHERE v.id = x.conversation_id FOR NO KEY UPDATE;
  SELECT * INTO STRICT x FROM loquat.events AS e WHERE e.id = event FOR NO KEY UPDATE;
  status := CASE WHEN x.outcome IS NOT NULL THEN 'done'
                 WHEN x.conversation_id <> c.id OR EXISTS (SELECT FROM loquat.results AS s WHERE s.event_id = event) THEN 'superseded' END;
  IF status IS NOT NULL THEN RETURN NEXT; RETURN; END IF;
  nth := coalesce((SELECT l.times FROM loquat.failures AS l WHERE l.event_id = event), 0) + 1;
  failure := loquat.failure_id(event, nth);
  -- Waits for a bot's open transaction at this version, at most lock_timeout.
  INSERT INTO loquat.results (event_id, conversation_id, version, result) VALUES (failure, c.id, c.version, '{}') ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    status := 'superseded';
    RETURN NEXT; RETURN;
  END IF;
  INSERT INTO loquat.failures (event_id, times, run, kind) VALUES (event, nth, fail_event.run, left(fail_event.kind, 60))
  ON CONFLICT (event_id) DO UPDATE SET times = excluded.times, run = excluded.run, kind = excluded.kind, updated_at = now();
  UPDATE public.conversations AS v
  SET version = v.version + 1, needs_attention = true, attention_since = now(), attention_event = event, attention_run = fail_event.run WHERE v.id = c.id;
  IF wanted->>'on_failure' = 'hand_over' AND NOT loquat.is_held(c.holder, c.held_until) THEN PERFORM loquat.set_holder(c.id, 'people', NULL, NULL, 'the bot failed'); END IF;
  IF wanted->>'on_failure' <> 'silent' AND wanted->>'apology' IS NOT NULL AND nth = 1 AND c.status = 'open' AND x.kind = 'message' THEN
    INSERT INTO public.messages (id, conversation_id, direction, type, text, sender, status, transitions, sent_at)
    VALUES (loquat.reply_id(failure, 1), c.id, 'out', 'text', wanted->>'apology', 'automation', 'queued', jsonb_build_object('queued', now()), now());
    INSERT INTO loquat.outbox (message_id, event_id, body)
    VALUES (loquat.reply_id(failure, 1), failure, jsonb_build_object('type', 'text', 'text', wanted->'apology', 'content', NULL));
  END IF;
  status := 'failed'; outbox := loquat.outbox_of(failure);
  RETURN NEXT;
END $$;

-- ---------------------------------------------------------------- conversations that close, contacts that are merged or erased
CREATE FUNCTION loquat.drop_ask() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DELETE FROM loquat.asks AS a WHERE a.conversation_id = NEW.id;
  RETURN NULL;
END $$;
CREATE TRIGGER drop_ask AFTER UPDATE OF status ON public.conversations
  FOR EACH ROW WHEN (NEW.status = 'closed' AND OLD.status <> 'closed') EXECUTE FUNCTION loquat.drop_ask();

-- As in 0008, and all that is known of the hold goes along, at a version of its own.
ALTER FUNCTION loquat.merge_contacts(uuid, uuid) RENAME TO merge_talk;
REVOKE ALL ON FUNCTION loquat.merge_talk FROM loquat_conversation_log;
CREATE FUNCTION loquat.merge_contacts(contact uuid, target uuid) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE held public.conversations; pairs uuid[]; word text;
BEGIN
  LOCK TABLE loquat.addresses IN EXCLUSIVE MODE;
  PERFORM FROM public.contacts AS p WHERE p.id IN (contact, target) ORDER BY p.id FOR UPDATE;
  PERFORM FROM public.conversations AS v WHERE v.contact_id IN (contact, target) AND v.status = 'open' ORDER BY v.id FOR UPDATE;
  pairs := ARRAY(SELECT u.id FROM public.conversations AS k JOIN public.conversations AS v ON v.number_id = k.number_id, unnest(ARRAY[v.id, k.id]) WITH ORDINALITY AS u(id, n)
                 WHERE (k.contact_id, k.status, k.holder) = (target, 'open', 'bot') AND (v.contact_id, v.status) = (contact, 'open') AND v.holder <> 'bot'
                 ORDER BY k.id, u.n);
  FOR n IN 1..coalesce(cardinality(pairs), 0) / 2 LOOP
    PERFORM loquat.supersede(pairs[2 * n]);
  END LOOP;
  word := loquat.merge_talk(contact, target);
  FOR n IN 1..CASE WHEN word = 'done' THEN coalesce(cardinality(pairs), 0) / 2 ELSE 0 END LOOP
    SELECT * INTO held FROM public.conversations AS v WHERE v.id = pairs[2 * n - 1];
    UPDATE public.conversations AS k
    SET holder_id = held.holder_id, held_since = held.held_since, held_until = held.held_until, hold_note = held.hold_note WHERE k.id = pairs[2 * n];
  END LOOP;
  RETURN word;
END $$;

ALTER FUNCTION loquat.forget_person(uuid[]) RENAME TO forget_talk;
CREATE FUNCTION loquat.forget_person(people uuid[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM loquat.forget_talk(people);
  UPDATE public.conversations AS v
  SET holder_id = NULL, held_since = NULL, held_until = NULL, hold_note = NULL, needs_attention = false, attention_since = NULL,
      attention_event = NULL, attention_run = NULL
  WHERE v.contact_id = ANY (people);
  DELETE FROM loquat.asks AS a USING public.conversations AS v WHERE v.id = a.conversation_id AND v.contact_id = ANY (people);
  DELETE FROM loquat.failures AS l USING loquat.events AS e, public.conversations AS v
  WHERE e.id = l.event_id AND v.id = e.conversation_id AND v.contact_id = ANY (people);
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA loquat FROM PUBLIC;
GRANT EXECUTE ON FUNCTION loquat.merge_contacts TO loquat_conversation_log;
GRANT EXECUTE ON FUNCTION loquat.following, loquat.settings, loquat.change_settings, loquat.holder_of, loquat.ask_of, loquat.begin_event, loquat.fail_event TO loquat_bot_runner;
