-- Merging and erasing contacts: one person in two rows, and a person who is to be forgotten. The rules stand at the head of 0002.
--
-- Whoever finds out whose a message is holds the table lock that a writer of loquat.addresses has, until its transaction ends; a merge and an erase take
-- it for themselves, before all locks of the order in 0002. So a contact that was found is still the right one when its rows are written. No tenant can
-- hold that lock. A handler's own transaction does not: it meets its version taken in loquat.results, as by any other run.

ALTER TABLE public.contacts ADD COLUMN erased_at timestamptz;           -- nothing of the person is left; the row is what links and counts hold on to
CREATE INDEX contacts_erased__lq ON public.contacts (id) WHERE erased_at IS NOT NULL;
CREATE INDEX ON loquat.updates USING gin (addresses jsonb_path_ops);    -- what names a person
CREATE INDEX ON loquat.receipts (recorded_at);

-- As before, behind the lock: a statement after it sees what a merge or an erase has done. An order that was given for a contact (contact_id of its
-- element) who was erased meanwhile is still his, and makes nobody of his addresses.
ALTER FUNCTION loquat.find_contacts(jsonb[]) RENAME TO find_contacts_locked;
CREATE FUNCTION loquat.find_contacts(elements jsonb[]) RETURNS uuid[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  LOCK TABLE loquat.addresses IN ROW EXCLUSIVE MODE;
  IF EXISTS (SELECT FROM unnest(elements) AS u(e) WHERE loquat.erased_of(u.e) IS NOT NULL) THEN
    RETURN ARRAY(SELECT coalesce(loquat.erased_of(u.e), (loquat.find_contacts_locked(ARRAY[u.e]))[1]) FROM unnest(elements) WITH ORDINALITY AS u(e, n) ORDER BY u.n);
  END IF;
  RETURN loquat.find_contacts_locked(elements);
END $$;

-- The erased contact for whom an order was given; null: none.
CREATE FUNCTION loquat.erased_of(element jsonb) RETURNS uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF element->>'kind' <> 'order' OR element->>'contact_id' IS NULL THEN RETURN NULL; END IF;
  RETURN (SELECT p.id FROM public.contacts AS p WHERE p.id = loquat.as_uuid(element->>'contact_id') AND p.erased_at IS NOT NULL);
END $$;

-- Such an order is discarded as it is recorded (P7 counts it), and leaves no conversation open.
CREATE FUNCTION loquat.discard_of_erased() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM public.conversations AS v JOIN public.contacts AS p ON p.id = v.contact_id WHERE v.id = NEW.conversation_id AND p.erased_at IS NOT NULL) THEN
    UPDATE public.conversations AS v SET status = 'closed', closed_at = now() WHERE v.id = NEW.conversation_id AND v.status = 'open';
    NEW.outcome := 'discarded';
    NEW.finished_at := now();
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER discard_of_erased BEFORE INSERT ON loquat.events FOR EACH ROW WHEN (NEW.kind = 'order') EXECUTE FUNCTION loquat.discard_of_erased();

-- As before, behind the lock; an event that has its outcome stays where it is: it may be that of a person who was erased.
CREATE OR REPLACE FUNCTION loquat.move_to_open(event uuid) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE old public.conversations; target uuid;
BEGIN
  LOCK TABLE loquat.addresses IN ROW EXCLUSIVE MODE;
  SELECT c.* INTO old FROM loquat.events AS e JOIN public.conversations AS c ON c.id = e.conversation_id WHERE e.id = event AND e.outcome IS NULL;
  IF FOUND THEN
    target := (loquat.find_conversations(ARRAY[old.contact_id], ARRAY[old.number_id]))[1];
    UPDATE loquat.events AS e SET conversation_id = target, opened_at = NULL
    WHERE e.id = event AND e.conversation_id = old.id AND e.outcome IS NULL
      AND EXISTS (SELECT FROM public.conversations AS c WHERE c.id = old.id AND c.status = 'closed');
    IF FOUND THEN UPDATE public.messages AS m SET conversation_id = target WHERE m.id = event AND m.conversation_id = old.id; END IF;
  END IF;
  RETURN (SELECT e.conversation_id FROM loquat.events AS e WHERE e.id = event);
END $$;

-- A receipt that waited a week has no message: the bus keeps one no longer than that. Its key may be a wamid, which holds a person's number.
CREATE FUNCTION loquat.drop_old_receipts() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  DELETE FROM loquat.receipts AS r WHERE (r.key, r.status) IN (
    SELECT o.key, o.status FROM loquat.receipts AS o WHERE o.recorded_at < now() - interval '7 days' ORDER BY o.recorded_at LIMIT 1000 FOR UPDATE SKIP LOCKED)
$$;

-- As before; whoever has something to do with receipts takes the old ones away.
CREATE OR REPLACE FUNCTION loquat.settle_receipts(keys text[]) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE waiting jsonb;
BEGIN
  WITH taken AS (
    DELETE FROM loquat.receipts AS r WHERE r.key = ANY (keys) AND loquat.message_of(r.key) IS NOT NULL RETURNING r.body
  )
  SELECT jsonb_agg(body) INTO waiting FROM taken;
  PERFORM loquat.drop_old_receipts();
  RETURN CASE WHEN waiting IS NULL THEN 0 ELSE loquat.apply_statuses(waiting) END;
END $$;

-- Whether a conversation is a person's who was erased.
CREATE FUNCTION loquat.is_erased(conversation uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM public.conversations AS v JOIN public.contacts AS p ON p.id = v.contact_id WHERE v.id = conversation AND p.erased_at IS NOT NULL)
$$;

-- As before, behind the lock. A message that waited on the bus does not bring a person back who was erased: it is a row without anything of him, so
-- that its receipts find it, and it failed.
-- Joins are nested loops by decree, as in record_inbound.
CREATE OR REPLACE FUNCTION loquat.record_outbound(messages jsonb) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  keys constant text[] := ARRAY(SELECT DISTINCT k FROM jsonb_to_recordset(messages) AS e(id text, wamid text), unnest(ARRAY[e.id, e.wamid]) AS k WHERE k IS NOT NULL);
  added int;
BEGIN
  LOCK TABLE loquat.addresses IN ROW EXCLUSIVE MODE;
  PERFORM loquat.lock_keys(keys);
  IF EXISTS (SELECT FROM public.contacts AS p WHERE p.erased_at IS NOT NULL) THEN messages := loquat.without_erased(messages); END IF;
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

-- The same messages, those to erased people without what is said in them; receipts that wait for their wamids go.
CREATE FUNCTION loquat.without_erased(messages jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE known constant jsonb := coalesce((SELECT jsonb_agg(e) FROM jsonb_array_elements(messages) AS a(e) WHERE NOT loquat.is_erased((e->>'conversation_id')::uuid)), '[]');
        gone constant jsonb := coalesce((SELECT jsonb_agg(e) FROM jsonb_array_elements(messages) AS a(e) WHERE loquat.is_erased((e->>'conversation_id')::uuid)), '[]');
BEGIN
  IF gone = '[]' THEN RETURN messages; END IF;
  DELETE FROM loquat.receipts AS r USING jsonb_array_elements(gone) AS a(e) WHERE r.key = a.e->>'wamid';
  RETURN known || (SELECT jsonb_agg(e - ARRAY['text', 'content', 'raw'] || jsonb_build_object('wamid', 'erased:' || (e->>'id'), 'status', 'failed'))
                   FROM jsonb_array_elements(gone) AS a(e));
END $$;

-- Takes the present version of a conversation, so that a run in flight loses and begins again. A result that was recorded and waits to be applied is
-- applied: its transaction is committed, its replies are published with its event. The caller holds the conversation's row.
CREATE FUNCTION loquat.supersede(conversation uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE r loquat.results; x loquat.events;
BEGIN
  LOOP
    INSERT INTO loquat.results (event_id, conversation_id, version, result)
    SELECT gen_random_uuid(), v.id, v.version, '{}' FROM public.conversations AS v WHERE v.id = conversation
    ON CONFLICT DO NOTHING;                                 -- waits for a handler that is about to commit, at most lock_timeout
    EXIT WHEN FOUND;
    SELECT s.* INTO STRICT r FROM loquat.results AS s JOIN public.conversations AS v ON (v.id, v.version) = (s.conversation_id, s.version)
    WHERE v.id = conversation;
    SELECT * INTO STRICT x FROM loquat.events AS e WHERE e.id = r.event_id FOR NO KEY UPDATE;
    PERFORM loquat.apply_result(x, r);
  END LOOP;
  UPDATE public.conversations AS v SET version = v.version + 1 WHERE v.id = conversation;
END $$;

-- Makes `contact` one with `target`: addresses, conversations, what is known of him; what `target` has itself stays. Where both have an open
-- conversation on a number, `target`'s stays open, and events that wait in the other one move there at their turn (move_to_open). Answers
--   done                            also when repeated
--   same, unknown, erased, merged   `contact` cannot be merged
--   into_unknown, into_erased, into_merged   `target` cannot be merged into; so no chain is longer than one step, and none is a ring
CREATE FUNCTION loquat.merge_contacts(contact uuid, target uuid) RETURNS text
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
  FOR this IN SELECT v.id FROM public.conversations AS v
              WHERE v.contact_id = contact
                AND (v.status = 'open' OR EXISTS (SELECT FROM loquat.events AS e WHERE e.conversation_id = v.id AND e.outcome IS NULL)) ORDER BY v.id LOOP
    PERFORM loquat.supersede(this);
  END LOOP;
  UPDATE public.conversations AS k SET holder = v.holder  -- a person who holds the one that is closed holds the other one from now on
  FROM public.conversations AS v
  WHERE (k.contact_id, k.status, k.holder) = (target, 'open', 'bot') AND (v.contact_id, v.status, v.number_id) = (contact, 'open', k.number_id) AND v.holder <> 'bot';
  UPDATE public.conversations AS v SET status = 'closed', closed_at = now()
  WHERE (v.contact_id, v.status) = (contact, 'open')
    AND EXISTS (SELECT FROM public.conversations AS k WHERE (k.contact_id, k.status, k.number_id) = (target, 'open', v.number_id));
  UPDATE public.conversations AS v SET contact_id = target WHERE v.contact_id = contact;

  UPDATE loquat.addresses AS a SET contact_id = target WHERE a.contact_id = contact;
  UPDATE public.contacts AS p SET merged_into = target, name = NULL, phone_number = NULL, attributes = '{}', updated_at = now() WHERE p.id = contact;
  UPDATE public.contacts AS p SET merged_into = target, updated_at = now() WHERE p.merged_into = contact;
  UPDATE public.contacts AS p SET name = coalesce(p.name, s.name), phone_number = coalesce(p.phone_number, s.phone_number),
         attributes = s.attributes || p.attributes, updated_at = now()
  WHERE p.id = target;
  RETURN 'done';
END $$;

-- The first step of erasing: who the person was, what is under way, what waits to be sent. Events of his that are open are given up (P7 counts them).
-- The caller holds the lock.
CREATE FUNCTION loquat.forget_person(people uuid[]) RETURNS void
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
  UPDATE public.conversations AS v SET version = v.version + 1, status = 'closed', closed_at = coalesce(v.closed_at, now()), state = 'unstructured', holder = 'bot'
  WHERE v.id = ANY (talks);
  DELETE FROM loquat.updates AS u USING loquat.addresses AS a
  WHERE a.contact_id = ANY (people) AND u.addresses @> jsonb_build_array(jsonb_build_object('kind', a.kind, 'value', a.value));
  DELETE FROM loquat.addresses AS a WHERE a.contact_id = ANY (people);
  UPDATE public.contacts AS p SET name = NULL, phone_number = NULL, attributes = '{}', erased_at = now(), updated_at = now() WHERE p.id = ANY (people);
END $$;

-- Erases a person with all that was merged into him, at most `batch` messages and results in one call: to be called until `more` is false. What stays:
-- ids, times, numbers, kinds and statuses of rows; of results the keys, by which they fence. An outbound message gets a wamid that is nobody's, for a late receipt fills in one that is missing. Answers
--   done       `people` are the contacts that are one person
--   unknown    no such contact
--   merged     it is another one's: `people` names that one
CREATE FUNCTION loquat.erase_contact(contact uuid, batch int) RETURNS TABLE (outcome text, people uuid[], more boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE p public.contacts; blanked int; dropped int;
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
  more := greatest(blanked, dropped) >= batch;
  RETURN NEXT;
END $$;

-- The events of a person, whoever was merged into him: by these bot-runner finds what it keeps of runs.
CREATE FUNCTION loquat.events_of(contact uuid) RETURNS uuid[] LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT coalesce(array_agg(e.id), '{}') FROM public.contacts AS c JOIN public.conversations AS v ON v.contact_id = c.id
  JOIN loquat.events AS e ON e.conversation_id = v.id WHERE c.id = events_of.contact OR c.merged_into = events_of.contact;
END;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA loquat FROM PUBLIC;
GRANT EXECUTE ON FUNCTION loquat.events_of TO loquat_bot_runner;
GRANT EXECUTE ON FUNCTION loquat.merge_contacts, loquat.erase_contact TO loquat_conversation_log;
