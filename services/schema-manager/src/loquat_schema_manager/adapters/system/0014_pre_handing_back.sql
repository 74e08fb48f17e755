-- Conversations that are handed back, forms of WhatsApp Flows, files of every kind, and how deep a result may be. The rules stand at the head of 0002.

-- As in 0003, and a form, and files of every kind.
CREATE OR REPLACE FUNCTION loquat.flaw_of_result(result jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
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
    IF (reply->>'type' IN ('text', 'buttons', 'list', 'flow', 'image', 'video', 'audio', 'document', 'sticker')) IS NOT TRUE THEN
      RETURN format('has a reply %s of a type that cannot be sent', n);
    END IF;
    IF jsonb_typeof(coalesce(reply->'text', 'null')) NOT IN ('string', 'null') OR length(reply->>'text') > 4096 THEN
      RETURN format('has a reply %s whose text is not a text of at most 4096 characters', n);
    END IF;
    IF jsonb_typeof(coalesce(reply->'content', 'null')) NOT IN ('object', 'null') THEN
      RETURN format('has a reply %s whose content is not an object', n);
    END IF;
  END LOOP;
  RETURN NULL;
END $$;

-- As in 0011. What is kept of a result is read by the platform, again and again, and its readers give up at some depth of their own: so the bot's word
-- ends before that. A question holds what a contact sent, which has at most 100 levels.
CREATE OR REPLACE FUNCTION loquat.check_result(result jsonb) RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE flaw text;
BEGIN
  IF jsonb_path_exists(result, '$.**{129}') THEN RAISE EXCEPTION 'the result has more than 128 levels' USING ERRCODE = 'LQ001'; END IF;
  PERFORM loquat.check_timed(result);
  IF result ? 'hold' OR result ? 'ask' THEN flaw := loquat.flaw_of_hold(result); END IF;
  IF flaw IS NOT NULL THEN RAISE EXCEPTION 'the result %', flaw USING ERRCODE = 'LQ001'; END IF;
END $$;

-- As in 0010; what tells a bot that a conversation is its own again is set however many timers of its own there are.
CREATE OR REPLACE FUNCTION loquat.set_timers(conversation uuid, given jsonb) RETURNS void
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
     OR g.name = 'loquat:handback'
  ON CONFLICT (conversation_id, name) DO UPDATE
    SET due_at = excluded.due_at, data = excluded.data, until_answer = excluded.until_answer, version = excluded.version,
        event_id = loquat.firing_id(t.id, excluded.version), armed = false, updated_at = now();
END $$;

-- As in 0011, and the bot is called when the conversation is its own again, whoever gives it back: by a timer, which is armed, fired once and called off
-- as all are. A hold that ends by itself has one from its beginning, two seconds later than its end: the index that fires it has a clock of its own.
CREATE OR REPLACE FUNCTION loquat.set_holder(conversation uuid, kind text, who text, seconds double precision, note text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE was public.conversations; told timestamptz;
BEGIN
  SELECT * INTO STRICT was FROM public.conversations AS v WHERE v.id = conversation;
  UPDATE public.conversations AS v
  SET holder = kind, holder_id = CASE WHEN kind <> 'bot' THEN who END,
      held_since = CASE WHEN kind = 'bot' THEN NULL WHEN (v.holder, v.holder_id) IS NOT DISTINCT FROM (kind, who) THEN coalesce(v.held_since, now()) ELSE now() END,
      held_until = CASE WHEN kind <> 'bot' THEN now() + make_interval(secs => seconds) END,
      hold_note = CASE WHEN kind <> 'bot' THEN note END
  WHERE v.id = conversation;
  IF kind <> 'bot' THEN DELETE FROM loquat.asks AS a WHERE a.conversation_id = conversation; END IF;
  IF was.status <> 'open' OR kind = 'bot' AND NOT loquat.is_held(was.holder, was.held_until) THEN RETURN; END IF;
  told := CASE WHEN kind = 'bot' THEN now() ELSE now() + make_interval(secs => seconds) + interval '2 seconds' END;
  IF told IS NULL THEN
    PERFORM loquat.call_off(conversation, ARRAY['loquat:handback'], false);
  ELSE
    PERFORM loquat.set_timers(conversation, jsonb_build_array(jsonb_build_object('name', 'loquat:handback', 'at', told, 'data',
      jsonb_build_object('held_by', CASE WHEN kind = 'bot' THEN was.holder ELSE kind END, 'lapsed', kind <> 'bot'))));
  END IF;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA loquat FROM PUBLIC;
