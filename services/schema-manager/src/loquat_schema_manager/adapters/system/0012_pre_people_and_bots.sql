-- Merging and erasing, and what a bot keeps of a person: memory, language, timers, questions, who holds a conversation. The rules stand at the head of 0002.
--
-- Memories are locked before results, as a handler's own transaction does; timers, asks and failures after them.

-- Two open conversations of one person on one number become one. Who holds the one that is closed holds the other, if nobody does; what needs attention
-- there needs it here; a question and timers that wait go along, and what the other one has itself stays. The caller has superseded both.
CREATE FUNCTION loquat.join_conversation(closing uuid, staying uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE v public.conversations; k public.conversations; held boolean;
BEGIN
  SELECT * INTO STRICT v FROM public.conversations AS c WHERE c.id = closing;
  SELECT * INTO STRICT k FROM public.conversations AS c WHERE c.id = staying;
  held := loquat.is_held(k.holder, k.held_until);
  IF NOT held AND loquat.is_held(v.holder, v.held_until) THEN
    held := true;
    UPDATE public.conversations AS c
    SET holder = v.holder, holder_id = v.holder_id, held_since = v.held_since, held_until = v.held_until, hold_note = v.hold_note WHERE c.id = k.id;
    DELETE FROM loquat.asks AS a WHERE a.conversation_id = k.id;
  END IF;
  IF v.needs_attention AND NOT k.needs_attention THEN
    UPDATE public.conversations AS c
    SET needs_attention = true, attention_since = v.attention_since, attention_event = v.attention_event, attention_run = v.attention_run WHERE c.id = k.id;
  END IF;
  INSERT INTO loquat.asks AS a (conversation_id, ask, expires_at, created_at)
  SELECT k.id, o.ask, o.expires_at, o.created_at FROM loquat.asks AS o
  WHERE o.conversation_id = v.id AND NOT held AND (o.expires_at IS NULL OR o.expires_at > now())
  ON CONFLICT (conversation_id) DO UPDATE SET ask = excluded.ask, expires_at = excluded.expires_at, created_at = excluded.created_at WHERE a.expires_at <= now();
  -- Other rows, for the index knows each by versions of its own conversation. They are leftovers at once: whatever event ends next tells the index of
  -- them, be it the one that fires in vain because it still knows the old row.
  INSERT INTO loquat.timers AS t (id, conversation_id, name, due_at, data, until_answer, version, event_id, updated_at)
  SELECT g.id, k.id, g.name, g.due_at, g.data, g.until_answer, k.version, loquat.firing_id(g.id, k.version), now() - interval '1 minute'
  FROM (SELECT uuidv7() AS id, o.name, o.due_at, o.data, o.until_answer FROM loquat.timers AS o WHERE o.conversation_id = v.id AND o.due_at IS NOT NULL) AS g
  ON CONFLICT (conversation_id, name) DO UPDATE
    SET due_at = excluded.due_at, data = excluded.data, until_answer = excluded.until_answer, version = excluded.version,
        event_id = loquat.firing_id(t.id, excluded.version), armed = false, updated_at = excluded.updated_at
    WHERE t.due_at IS NULL;
  UPDATE public.conversations AS c
  SET status = 'closed', closed_at = now(), holder = 'bot', holder_id = NULL, held_since = NULL, held_until = NULL, hold_note = NULL,
      needs_attention = false, attention_since = NULL, attention_event = NULL, attention_run = NULL
  WHERE c.id = v.id;
END $$;

-- As in 0008, and all that a bot keeps of `contact`. Both conversations of a pair are superseded: who holds one moves with its version alone.
CREATE OR REPLACE FUNCTION loquat.merge_contacts(contact uuid, target uuid) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE s public.contacts; t public.contacts; flaw text; this uuid;
BEGIN
  LOCK TABLE loquat.addresses IN EXCLUSIVE MODE;
  PERFORM FROM public.contacts AS p WHERE p.id IN (contact, target) ORDER BY p.id FOR UPDATE;
  SELECT * INTO s FROM public.contacts AS p WHERE p.id = contact;
  SELECT * INTO t FROM public.contacts AS p WHERE p.id = target;
  IF s.merged_into = target THEN RETURN 'done'; END IF;
  flaw := CASE WHEN contact = target THEN 'same' WHEN s.id IS NULL THEN 'unknown' WHEN s.erased_at IS NOT NULL THEN 'erased'
               WHEN s.merged_into IS NOT NULL THEN 'merged' WHEN t.id IS NULL THEN 'into_unknown' WHEN t.erased_at IS NOT NULL THEN 'into_erased'
               WHEN t.merged_into IS NOT NULL THEN 'into_merged' END;
  IF flaw IS NOT NULL THEN RETURN flaw; END IF;

  PERFORM FROM public.conversations AS v WHERE v.contact_id = contact OR v.contact_id = target AND v.status = 'open' ORDER BY v.id FOR UPDATE;
  PERFORM loquat.merge_memories(contact, target);
  FOR this IN SELECT v.id FROM public.conversations AS v
              WHERE v.contact_id = contact
                AND (v.status = 'open' OR EXISTS (SELECT FROM loquat.events AS e WHERE e.conversation_id = v.id AND e.outcome IS NULL))
                 OR (v.contact_id, v.status) = (target, 'open')
                AND EXISTS (SELECT FROM public.conversations AS k WHERE (k.contact_id, k.status, k.number_id) = (contact, 'open', v.number_id)) ORDER BY v.id LOOP
    PERFORM loquat.supersede(this);
  END LOOP;
  PERFORM loquat.join_conversation(v.id, k.id)              -- of those that are still open
  FROM public.conversations AS v JOIN public.conversations AS k ON (k.contact_id, k.status, k.number_id) = (target, 'open', v.number_id)
  WHERE (v.contact_id, v.status) = (contact, 'open');
  UPDATE public.conversations AS v SET contact_id = target WHERE v.contact_id = contact;

  SELECT * INTO s FROM public.contacts AS p WHERE p.id = contact;       -- a result that waited may have noted something
  UPDATE loquat.addresses AS a SET contact_id = target WHERE a.contact_id = contact;
  UPDATE public.contacts AS p SET merged_into = target, name = NULL, phone_number = NULL, language = NULL, attributes = '{}', updated_at = now() WHERE p.id = contact;
  UPDATE public.contacts AS p SET merged_into = target, updated_at = now() WHERE p.merged_into = contact;
  UPDATE public.contacts AS p SET name = coalesce(p.name, s.name), phone_number = coalesce(p.phone_number, s.phone_number),
         language = coalesce(p.language, s.language), attributes = s.attributes || p.attributes, updated_at = now()
  WHERE p.id = target;
  RETURN 'done';
END $$;
DROP FUNCTION IF EXISTS loquat.merge_talk(uuid, uuid);

-- What schedules were about to say to people who are to be forgotten. The place of each stays: the ids of the others' orders follow from it. A contact
-- without an address gets nothing. Only runs of which something is remembered can still wait (0010).
CREATE FUNCTION loquat.forget_sends(people uuid[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  UPDATE loquat.results AS r SET result = jsonb_set(r.result, '{sends}', left_over.sends)
  FROM loquat.automation_runs AS n, LATERAL (
    SELECT jsonb_agg(CASE WHEN w.his THEN jsonb_build_object('contact_id', w.s->'contact_id') ELSE w.s END ORDER BY w.n) AS sends, bool_or(w.his) AS any_his
    FROM (SELECT a.s, a.n, coalesce(loquat.as_uuid(a.s->>'contact_id') = ANY (people), false) AS his
          FROM loquat.results AS o, jsonb_array_elements(CASE jsonb_typeof(o.result->'sends') WHEN 'array' THEN o.result->'sends' ELSE '[]' END)
                                    WITH ORDINALITY AS a(s, n)
          WHERE o.event_id = n.event_id) AS w) AS left_over
  WHERE r.event_id = n.event_id AND r.result ? 'sends' AND left_over.any_his
$$;

-- As in 0008, and what a bot keeps of them, but for their memories: those go in batches. A timer that the index still knows fires in vain.
CREATE OR REPLACE FUNCTION loquat.forget_person(people uuid[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE talks uuid[];
BEGIN
  PERFORM FROM public.contacts AS p WHERE p.id = ANY (people) ORDER BY p.id FOR UPDATE;
  PERFORM FROM public.conversations AS v WHERE v.contact_id = ANY (people) ORDER BY v.id FOR UPDATE;
  talks := ARRAY(SELECT v.id FROM public.conversations AS v WHERE v.contact_id = ANY (people) ORDER BY v.id);
  PERFORM FROM loquat.events AS e WHERE e.conversation_id = ANY (talks) AND e.outcome IS NULL ORDER BY e.id FOR NO KEY UPDATE;
  UPDATE loquat.events AS e SET outcome = 'discarded', finished_at = now() WHERE e.conversation_id = ANY (talks) AND e.outcome IS NULL;
  UPDATE public.messages AS m SET status = 'failed', transitions = m.transitions || jsonb_build_object('failed', now())
  WHERE m.conversation_id = ANY (talks) AND m.status = 'queued';
  DELETE FROM loquat.outbox AS o USING public.messages AS m WHERE o.message_id = m.id AND m.conversation_id = ANY (talks);
  INSERT INTO loquat.results (event_id, conversation_id, version, result)
  SELECT gen_random_uuid(), v.id, v.version, '{}' FROM public.conversations AS v WHERE v.id = ANY (talks) ORDER BY v.id
  ON CONFLICT DO NOTHING;                                   -- waits for a handler that is about to commit, at most lock_timeout
  PERFORM loquat.forget_sends(people);
  UPDATE public.conversations AS v
  SET version = v.version + 1, status = 'closed', closed_at = coalesce(v.closed_at, now()), state = 'unstructured', holder = 'bot', holder_id = NULL,
      held_since = NULL, held_until = NULL, hold_note = NULL, needs_attention = false, attention_since = NULL, attention_event = NULL, attention_run = NULL
  WHERE v.id = ANY (talks);
  DELETE FROM loquat.timers AS t WHERE t.conversation_id = ANY (talks);
  DELETE FROM loquat.asks AS a WHERE a.conversation_id = ANY (talks);
  DELETE FROM loquat.failures AS l USING loquat.events AS e WHERE e.id = l.event_id AND e.conversation_id = ANY (talks);
  DELETE FROM loquat.updates AS u USING loquat.addresses AS a
  WHERE a.contact_id = ANY (people) AND u.addresses @> jsonb_build_array(jsonb_build_object('kind', a.kind, 'value', a.value));
  DELETE FROM loquat.addresses AS a WHERE a.contact_id = ANY (people);
  UPDATE public.contacts AS p SET name = NULL, phone_number = NULL, language = NULL, attributes = '{}', erased_at = now(), updated_at = now()
  WHERE p.id = ANY (people);
END $$;
DROP FUNCTION IF EXISTS loquat.forget_talk(uuid[]);

-- As in 0008, and memories, at most `batch` of each in one call.
CREATE OR REPLACE FUNCTION loquat.erase_contact(contact uuid, batch int) RETURNS TABLE (outcome text, people uuid[], more boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE p public.contacts; forgotten int; blanked int; dropped int;
BEGIN
  IF EXISTS (SELECT FROM public.contacts AS c WHERE c.id = contact AND c.erased_at IS NULL) THEN
    LOCK TABLE loquat.addresses IN EXCLUSIVE MODE;
  END IF;
  SELECT * INTO p FROM public.contacts AS c WHERE c.id = contact;
  more := false;
  IF p.id IS NULL THEN outcome := 'unknown'; RETURN NEXT; RETURN; END IF;
  IF p.merged_into IS NOT NULL THEN outcome := 'merged'; people := ARRAY[p.merged_into]; RETURN NEXT; RETURN; END IF;
  outcome := 'done';
  people := ARRAY(SELECT c.id FROM public.contacts AS c WHERE c.id = contact OR c.merged_into = contact ORDER BY c.id);
  IF p.erased_at IS NULL THEN                               -- alone: others wait for its end
    PERFORM loquat.forget_person(people);
    more := true;
    RETURN NEXT; RETURN;
  END IF;
  forgotten := loquat.forget_memories(people, batch);
  WITH chosen AS (
    SELECT m.id, m.wamid, CASE m.direction WHEN 'out' THEN 'erased:' || m.id END AS nobody FROM public.messages AS m
    JOIN public.conversations AS v ON v.id = m.conversation_id
    WHERE v.contact_id = ANY (people)
      AND (num_nonnulls(m.text, m.content, m.raw, m.reply_to, m.error_title) > 0
           OR m.wamid IS DISTINCT FROM CASE m.direction WHEN 'out' THEN 'erased:' || m.id END)
    ORDER BY m.id LIMIT batch FOR NO KEY UPDATE OF m
  ), waiting AS (
    DELETE FROM loquat.receipts AS r USING chosen AS c WHERE r.key = c.wamid OR r.key = c.id::text
  )
  UPDATE public.messages AS m SET text = NULL, content = NULL, raw = NULL, reply_to = NULL, error_title = NULL, wamid = c.nobody
  FROM chosen AS c WHERE m.id = c.id;
  GET DIAGNOSTICS blanked = ROW_COUNT;
  WITH chosen AS (
    SELECT r.event_id FROM loquat.results AS r JOIN public.conversations AS v ON v.id = r.conversation_id
    WHERE v.contact_id = ANY (people) AND (r.result <> '{}' OR r.touched IS NOT NULL) LIMIT batch
  )
  UPDATE loquat.results AS r SET result = '{}', touched = NULL FROM chosen AS c WHERE r.event_id = c.event_id;
  GET DIAGNOSTICS dropped = ROW_COUNT;
  more := greatest(forgotten, blanked, dropped) >= batch;
  RETURN NEXT;
END $$;

-- A person's conversations, whoever was merged into him: by these bot-runner finds his timers in its index.
CREATE FUNCTION loquat.conversations_of(contact uuid) RETURNS uuid[] LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT coalesce(array_agg(v.id), '{}') FROM public.contacts AS c JOIN public.conversations AS v ON v.contact_id = c.id
  WHERE c.id = conversations_of.contact OR c.merged_into = conversations_of.contact;
END;

-- As in 0010, and nothing is said that a schedule was about to say; whoever knows the bot's secrets reads them again: they may be others now.
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
  UPDATE loquat.results AS r SET result = r.result - 'sends' FROM loquat.automation_runs AS n WHERE r.event_id = n.event_id AND r.result ? 'sends';
  UPDATE loquat.events AS e SET outcome = 'discarded', finished_at = now() WHERE e.outcome IS NULL;
  DELETE FROM loquat.timers;
  UPDATE loquat.bots AS b SET secrets = gen_random_uuid() WHERE b.secrets IS NOT NULL;
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
GRANT EXECUTE ON FUNCTION loquat.conversations_of TO loquat_bot_runner;
