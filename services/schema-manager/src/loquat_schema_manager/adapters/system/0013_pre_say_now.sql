-- What a handler says before it ends. The rules stand at the head of 0002.
--
-- Such a message is true at once, whatever becomes of its handler. Its id follows from the event that is answered and from its place among what is said
-- so: a run that is repeated says it again under the same id, which is once. It is fenced as commit_run is: what a run that was superseded, or an
-- observer, wants to say is not said. It waits in the outbox under the event of its run, so whoever begins, ends or gives up that event publishes it.

-- The id of what is said at a place, from 1.
CREATE FUNCTION loquat.now_id(event uuid, place int) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN loquat.reply_id(event, -2000000000 - place);

-- As outbox_of, after what the same statement has done; null: nothing waits.
CREATE FUNCTION loquat.unsaid(event uuid) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM loquat.outbox AS o WHERE o.event_id = event) THEN RETURN NULL; END IF;
  RETURN loquat.outbox_of(event);
END $$;

-- Says a reply now, in the run of `event` at this version. `answered` is the event that the handler answers: of a handler that has asked, the one that it
-- began with. Answers 'said' with all that is to be published of this run, 'superseded': begin again, or 'held': somebody holds the conversation.
CREATE FUNCTION loquat.say_now(event uuid, answered uuid, version bigint, place int, reply jsonb) RETURNS TABLE (status text, outbox jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
  message constant uuid := loquat.now_id(answered, place);
  x loquat.events; c public.conversations;
BEGIN
  PERFORM loquat.check_result(jsonb_build_object('replies', jsonb_build_array(reply)));
  SELECT * INTO x FROM loquat.events AS e WHERE e.id = event AND e.kind IN ('message', 'timer');
  IF NOT FOUND THEN RAISE EXCEPTION 'the event has no contact' USING ERRCODE = 'LQ004'; END IF;
  SELECT * INTO STRICT c FROM public.conversations AS v WHERE v.id = x.conversation_id FOR NO KEY UPDATE;
  SELECT * INTO STRICT x FROM loquat.events AS e WHERE e.id = event FOR NO KEY UPDATE;
  -- What is answered is the bot's own word: the id of another contact's event would take that one's place.
  IF answered <> event AND NOT EXISTS (SELECT FROM loquat.events AS e JOIN public.conversations AS v ON v.id = e.conversation_id
                                       WHERE e.id = answered AND v.contact_id = c.contact_id) THEN
    RAISE EXCEPTION 'the event that is answered is not this contact''s' USING ERRCODE = 'LQ001';
  END IF;
  status := CASE WHEN x.outcome IS NOT NULL OR x.opened_at IS NULL OR x.conversation_id <> c.id OR c.version <> say_now.version
                      OR EXISTS (SELECT FROM loquat.results AS s WHERE s.event_id = event OR (s.conversation_id, s.version) = (c.id, c.version)) THEN 'superseded'
                 WHEN loquat.is_held(c.holder, c.held_until) AND NOT (c.holder = 'people' AND c.needs_attention AND c.attention_event = event) THEN 'held'
                 ELSE 'said' END;
  IF status = 'said' THEN
    INSERT INTO public.messages (id, conversation_id, direction, type, text, content, sender, status, transitions, sent_at)
    VALUES (message, c.id, 'out', reply->>'type', reply->>'text', nullif(reply->'content', 'null'), 'bot', 'queued', jsonb_build_object('queued', now()), now())
    ON CONFLICT (id) DO NOTHING;
    IF FOUND THEN
      INSERT INTO loquat.outbox (message_id, event_id, body)
      VALUES (message, event, jsonb_build_object('type', reply->'type', 'text', reply->'text', 'content', reply->'content'));
    END IF;
    outbox := loquat.outbox_of(event);
  END IF;
  RETURN NEXT;
END $$;

-- After the publish is durable: these alone, for another may have been said meanwhile.
CREATE FUNCTION loquat.clear_said(messages uuid[]) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC DELETE FROM loquat.outbox AS o WHERE o.message_id = ANY (messages); END;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA loquat FROM PUBLIC;
GRANT EXECUTE ON FUNCTION loquat.unsaid, loquat.say_now, loquat.clear_said TO loquat_bot_runner;
