-- A run: begin_run, the handler's record_result, commit_run, clear_outbox. The rules stand at the head of 0002.

-- What is wrong with a result {"state": text, "replies": [{"type", "text", "content"}, ...], "end": bool}; null: nothing. It is the project's own
-- word, so what is stored here can be applied, and every reply in it can become a message.queued event. Step by step, not one CASE: the
-- planner may evaluate a later branch before it has tested an earlier one.
CREATE FUNCTION loquat.flaw_of_result(result jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE reply jsonb; n int := 0;
BEGIN
  IF result IS NULL OR jsonb_typeof(result) <> 'object' THEN RETURN 'is not an object'; END IF;
  IF octet_length(result::text) > 262144 THEN RETURN 'is larger than 256 KiB'; END IF;
  IF jsonb_typeof(coalesce(result->'state', 'null')) NOT IN ('string', 'null') OR length(result->>'state') NOT BETWEEN 1 AND 60 THEN
    RETURN 'has a state that is not a text of 1 to 60 characters';
  END IF;
  IF jsonb_typeof(coalesce(result->'end', 'null')) NOT IN ('boolean', 'null') THEN RETURN 'has an end that is not a boolean'; END IF;
  IF jsonb_typeof(coalesce(result->'replies', 'null')) = 'null' THEN RETURN NULL; END IF;
  IF jsonb_typeof(result->'replies') <> 'array' THEN RETURN 'has replies that are not an array'; END IF;
  IF jsonb_array_length(result->'replies') > 50 THEN RETURN 'has more than 50 replies'; END IF;
  FOR reply IN SELECT r FROM jsonb_array_elements(result->'replies') AS r LOOP
    n := n + 1;
    IF jsonb_typeof(reply) <> 'object' THEN RETURN format('has a reply %s that is not an object', n); END IF;
    IF (reply->>'type' IN ('text', 'buttons', 'list', 'image')) IS NOT TRUE THEN RETURN format('has a reply %s of a type that cannot be sent', n); END IF;
    IF jsonb_typeof(coalesce(reply->'text', 'null')) NOT IN ('string', 'null') OR length(reply->>'text') > 4096 THEN
      RETURN format('has a reply %s whose text is not a text of at most 4096 characters', n);
    END IF;
    IF jsonb_typeof(coalesce(reply->'content', 'null')) NOT IN ('object', 'null') THEN
      RETURN format('has a reply %s whose content is not an object', n);
    END IF;
  END LOOP;
  RETURN NULL;
END $$;

CREATE FUNCTION loquat.check_result(result jsonb) RETURNS void LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE flaw constant text := loquat.flaw_of_result(result);
BEGIN
  IF flaw IS NOT NULL THEN RAISE EXCEPTION 'the result %', flaw USING ERRCODE = 'LQ001'; END IF;
END $$;

-- What the outbox still holds of an event, with all that a publisher needs: [{"message_id", "event_id", "conversation_id", "contact_id",
-- "number_id", "addresses": [{"kind", "value"}], "sender", "queued_at", "body": {"type", "text", "content"}}, ...]; null if nothing.
CREATE FUNCTION loquat.outbox_of(event uuid) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_agg(jsonb_build_object('message_id', o.message_id, 'event_id', o.event_id, 'conversation_id', c.id, 'contact_id', c.contact_id,
           'number_id', c.number_id, 'sender', m.sender, 'queued_at', o.created_at, 'body', o.body,
           'addresses', (SELECT coalesce(jsonb_agg(jsonb_build_object('kind', a.kind, 'value', a.value)
                                          ORDER BY array_position(ARRAY['user_id', 'wa_id', 'phone', 'username'], a.kind), a.value), '[]')
                         FROM loquat.addresses AS a WHERE a.contact_id = c.contact_id)) ORDER BY o.seq)
  FROM loquat.outbox AS o JOIN public.messages AS m ON m.id = o.message_id JOIN public.conversations AS c ON c.id = m.conversation_id
  WHERE o.event_id = outbox_of.event
$$;

-- A message that waited while its conversation was closed opens the next one: moves the event and its message there. The conversation it is in
-- afterwards. Whoever runs it meanwhile under the closed one meets the unique keys of loquat.results, as always.
CREATE FUNCTION loquat.move_to_open(event uuid) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE old public.conversations; target uuid;
BEGIN
  SELECT c.* INTO STRICT old FROM loquat.events AS e JOIN public.conversations AS c ON c.id = e.conversation_id WHERE e.id = event;
  target := (loquat.find_conversations(ARRAY[old.contact_id], ARRAY[old.number_id]))[1];
  UPDATE loquat.events AS e SET conversation_id = target, opened_at = NULL
  WHERE e.id = event AND e.conversation_id = old.id AND e.outcome IS NULL
    AND EXISTS (SELECT FROM public.conversations AS c WHERE c.id = old.id AND c.status = 'closed');
  IF FOUND THEN UPDATE public.messages AS m SET conversation_id = target WHERE m.id = event AND m.conversation_id = old.id; END IF;
  RETURN (SELECT e.conversation_id FROM loquat.events AS e WHERE e.id = event);
END $$;

-- One round trip before a handler. `hold` marks the event with that outcome ('held', 'expired', 'discarded') unless its result is known already.
-- Answers what to do:
--   done      a marker exists; outbox holds what is still to be published
--   recorded  this event's result is stored: call commit_run
--   blocked   another event's result holds this version (in blocked_by): commit_run that one first, then begin again
--   held      a person holds the conversation, or the caller gave an outcome: marked
--   run       call the handler with state and version
CREATE FUNCTION loquat.begin_run(event jsonb, hold text DEFAULT NULL)
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
  END IF;
  SELECT * INTO STRICT c FROM public.conversations AS v WHERE v.id = x.conversation_id;
  IF c.status = 'closed' AND x.outcome IS NULL AND hold IS NULL AND NOT EXISTS (SELECT FROM loquat.results AS s WHERE s.event_id = x.id) THEN
    x.conversation_id := loquat.move_to_open(x.id);
    SELECT * INTO STRICT c FROM public.conversations AS v WHERE v.id = x.conversation_id;
  END IF;
  conversation_id := c.id; contact_id := c.contact_id; state := c.state; version := c.version;

  SELECT * INTO r FROM loquat.results AS s WHERE s.conversation_id = c.id AND s.version = c.version;
  IF r.event_id = x.id THEN todo := 'recorded';             -- before the marker: a bot that froze may commit its result after 'held'
  ELSIF x.outcome IS NOT NULL THEN todo := 'done'; outbox := loquat.outbox_of(x.id);
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
  -- Both unique keys fence: a second run of this event, and a run of another event of this conversation at the same version. They hold
  -- whatever isolation level or old snapshot the tenant chose. The loser sees unique_violation and rolls back; the runner begins again.
  INSERT INTO loquat.results (event_id, conversation_id, version, result) VALUES (event, conversation, record_result.version, result);
END $$;

-- Applies a stored result: state, version, marker, replies, outbox. The caller holds the conversation's row and the event's.
CREATE FUNCTION loquat.apply_result(x loquat.events, r loquat.results) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE ends constant boolean := coalesce((r.result->>'end')::boolean, false);
BEGIN
  UPDATE public.conversations AS v
  SET version = v.version + 1, state = coalesce(r.result->>'state', v.state),
      status = CASE WHEN ends THEN 'closed' ELSE v.status END, closed_at = CASE WHEN ends THEN now() ELSE v.closed_at END
  WHERE v.id = r.conversation_id;
  UPDATE loquat.events AS e SET outcome = 'handled', finished_at = now() WHERE e.id = x.id;
  WITH replies AS (
    SELECT loquat.reply_id(x.id, n::int) AS id, n,
           jsonb_build_object('type', a.body->'type', 'text', a.body->'text', 'content', a.body->'content') AS body
    FROM jsonb_array_elements(coalesce(nullif(r.result->'replies', 'null'), '[]')) WITH ORDINALITY AS a(body, n)
  ), queued AS (
    INSERT INTO public.messages (id, conversation_id, direction, type, text, content, sender, sender_id, status, transitions, sent_at)
    SELECT id, r.conversation_id, 'out', body->>'type', body->>'text', nullif(body->'content', 'null'),
           CASE x.kind WHEN 'order' THEN 'person' ELSE 'bot' END, CASE x.kind WHEN 'order' THEN r.result->>'ordered_by' END,
           'queued', jsonb_build_object('queued', now()), now() + n * interval '1 microsecond'      -- the order of the replies is their order in time
    FROM replies
  )
  INSERT INTO loquat.outbox (message_id, event_id, body) SELECT id, x.id, body FROM replies ORDER BY n;
END $$;

-- Applies the outcome of an event once. A stored result wins over the argument, which may then be null, so anybody may finish anybody's
-- event. Answers 'committed' or 'done' with the outbox rows to publish, or 'superseded': begin again. A person's order gives
-- {"replies": [message], "ordered_by": id}.
CREATE FUNCTION loquat.commit_run(event uuid, expected_version bigint DEFAULT NULL, result jsonb DEFAULT NULL)
RETURNS TABLE (status text, outbox jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
#variable_conflict use_column
DECLARE x loquat.events; c public.conversations; r loquat.results;
BEGIN
  SELECT * INTO x FROM loquat.events AS e WHERE e.id = event AND e.kind <> 'update';
  IF NOT FOUND THEN RAISE EXCEPTION 'unknown event' USING ERRCODE = 'LQ004'; END IF;
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

-- After the publish is durable: of one event, or of all that were published together.
CREATE FUNCTION loquat.clear_outbox(events uuid[]) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC DELETE FROM loquat.outbox AS o WHERE o.event_id = ANY (events); END;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA loquat FROM PUBLIC;
GRANT EXECUTE ON FUNCTION loquat.begin_run, loquat.commit_run, loquat.clear_outbox TO loquat_bot_runner;
