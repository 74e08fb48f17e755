-- The bot itself: its memory, its configuration, and what it writes of its contact. The rules stand at the head of 0002.
--
-- No foreign key of a memory to its contact, and no write to a contact in a handler's transaction: either would lock a system row for as long as a
-- tenant leaves its transaction open, and whoever records the contact's next message would wait for it.

ALTER TABLE public.contacts ADD COLUMN language text;       -- a tag such as 'de' or 'pt_BR'; null: not known

ALTER TABLE loquat.bots ALTER COLUMN org_id TYPE text USING org_id::text, ALTER COLUMN org_id DROP NOT NULL,    -- null: of a database made before this file
  ADD COLUMN secrets uuid;                                  -- another one whenever the secrets that bot-runner keeps have changed
CREATE UNIQUE INDEX bots_one ON loquat.bots ((true));       -- a project is one bot

ALTER TABLE loquat.bot_memories
  ADD COLUMN contact_id uuid,                               -- null: the bot's own
  ADD COLUMN expires_at timestamptz,
  DROP CONSTRAINT bot_memories_bot_id_key_key,
  ADD UNIQUE NULLS NOT DISTINCT (bot_id, contact_id, key),  -- of the bot's own: (bot_id, key)
  ADD CHECK (length(key) BETWEEN 1 AND 200), ADD CHECK (octet_length(value::text) <= 65536);
CREATE INDEX ON loquat.bot_memories (expires_at) WHERE expires_at IS NOT NULL;
ALTER TABLE loquat.bot_configuration ADD CHECK (length(key) BETWEEN 1 AND 200), ADD CHECK (octet_length(value::text) <= 16384);

-- The project's bot. It is there from the beginning (open_project); made here where it is not.
CREATE FUNCTION loquat.this_bot() RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE found uuid;
BEGIN
  SELECT b.id INTO found FROM loquat.bots AS b;
  IF found IS NULL THEN
    INSERT INTO loquat.bots (name) VALUES ('bot') ON CONFLICT DO NOTHING;
    SELECT b.id INTO STRICT found FROM loquat.bots AS b;
  END IF;
  RETURN found;
END $$;

-- Whose event it is that the bot works on. As for record_result: the bot's own login, and an event that was given to it and is not over.
CREATE FUNCTION loquat.contact_at_work(event uuid) RETURNS uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE contact uuid;
BEGIN
  IF session_user IS DISTINCT FROM (SELECT i.bot_login FROM loquat.identity AS i) THEN
    RAISE EXCEPTION 'this is for bot code' USING ERRCODE = 'LQ002';
  END IF;
  SELECT c.contact_id INTO contact FROM loquat.events AS e JOIN public.conversations AS c ON c.id = e.conversation_id
  WHERE e.id = contact_at_work.event AND e.kind NOT IN ('order', 'update') AND e.opened_at IS NOT NULL AND e.outcome IS NULL;
  IF NOT FOUND THEN RAISE EXCEPTION 'the event is not open' USING ERRCODE = 'LQ003'; END IF;
  RETURN contact;
END $$;

-- ---------------------------------------------------------------- memory, inside the handler's own transaction
-- Limits: a key of 1 to 200 characters, a value of 64 KiB, 100,000 keys; whole numbers up to 2^53 - 1, which every reader of JSON keeps. What a
-- program may run into is an answer, no error: an error would end its transaction.

-- Whether another key may be made. The server's own count is a second old, and costs nothing; near the limit they are counted. What this lets through
-- (six connections at once) the size of the database bounds.
CREATE FUNCTION loquat.memory_is_full(bot uuid) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE memories constant oid := 'loquat.bot_memories'::regclass;
BEGIN
  IF pg_stat_get_live_tuples(memories) + pg_stat_get_xact_tuples_inserted(memories) < 90000 THEN RETURN false; END IF;
  RETURN (SELECT count(*) >= 100000 FROM loquat.bot_memories AS m WHERE m.bot_id = memory_is_full.bot);
END $$;

CREATE FUNCTION loquat.check_memory(key text, value jsonb, ttl interval) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (length(key) BETWEEN 1 AND 200) IS NOT TRUE THEN RAISE EXCEPTION 'a key of the memory has 1 to 200 characters' USING ERRCODE = 'LQ005'; END IF;
  IF (octet_length(value::text) <= 65536) IS NOT TRUE THEN RAISE EXCEPTION 'a value of the memory has at most 64 KiB' USING ERRCODE = 'LQ005'; END IF;
  IF ttl NOT BETWEEN interval '1 microsecond' AND interval '3660 days' THEN
    RAISE EXCEPTION 'a time to live is more than nothing and at most ten years' USING ERRCODE = 'LQ005';
  END IF;
END $$;

-- Whose memory it is: null for the bot's own.
CREATE FUNCTION loquat.rememberer(event uuid, of_contact boolean) RETURNS uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE contact constant uuid := loquat.contact_at_work(event);
BEGIN
  IF of_contact IS NOT TRUE THEN RETURN NULL; END IF;
  IF contact IS NULL THEN RAISE EXCEPTION 'the event has no contact' USING ERRCODE = 'LQ005'; END IF;
  RETURN contact;
END $$;

-- Null: nothing is remembered (any more).
CREATE FUNCTION loquat.memory_get(event uuid, of_contact boolean, key text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE contact constant uuid := loquat.rememberer(event, of_contact);
BEGIN
  RETURN (SELECT m.value FROM loquat.bot_memories AS m JOIN loquat.bots AS b ON b.id = m.bot_id
          WHERE m.contact_id IS NOT DISTINCT FROM contact AND m.key = memory_get.key
            AND (m.expires_at IS NULL OR m.expires_at > clock_timestamp()));
END $$;

-- Lasts for the time to live, without one for ever. False: there are 100,000 keys.
CREATE FUNCTION loquat.memory_set(event uuid, of_contact boolean, key text, value jsonb, ttl interval DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
#variable_conflict use_column
DECLARE
  contact constant uuid := loquat.rememberer(event, of_contact);
  bot constant uuid := loquat.this_bot();
BEGIN
  PERFORM loquat.check_memory(memory_set.key, memory_set.value, ttl);
  IF loquat.memory_is_full(bot) AND NOT EXISTS (
    SELECT FROM loquat.bot_memories AS m WHERE m.bot_id = bot AND m.contact_id IS NOT DISTINCT FROM contact AND m.key = memory_set.key) THEN
    RETURN false;
  END IF;
  INSERT INTO loquat.bot_memories (bot_id, contact_id, key, value, expires_at)
  VALUES (bot, contact, memory_set.key, memory_set.value, clock_timestamp() + ttl)
  ON CONFLICT (bot_id, contact_id, key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at, updated_at = now();
  RETURN true;
END $$;

-- Adds to a whole number; what is not there (any more) is 0 and lives from now on as long as said. Whoever comes at the same time waits for this
-- transaction. refused: 'full', 'number' (what is there is none, or the sum would be too large); nothing has changed then.
CREATE FUNCTION loquat.memory_increment(event uuid, of_contact boolean, key text, amount bigint, ttl interval DEFAULT NULL,
                                        OUT total bigint, OUT refused text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
#variable_conflict use_column
DECLARE
  contact constant uuid := loquat.rememberer(event, of_contact);
  bot constant uuid := loquat.this_bot();
BEGIN
  PERFORM loquat.check_memory(memory_increment.key, to_jsonb(amount), ttl);
  IF loquat.memory_is_full(bot) AND NOT EXISTS (
    SELECT FROM loquat.bot_memories AS m WHERE m.bot_id = bot AND m.contact_id IS NOT DISTINCT FROM contact AND m.key = memory_increment.key) THEN
    refused := 'full';
    RETURN;
  END IF;
  IF loquat.sum_of(NULL, amount) IS NOT NULL THEN
    INSERT INTO loquat.bot_memories AS m (bot_id, contact_id, key, value, expires_at)
    VALUES (bot, contact, memory_increment.key, to_jsonb(amount), clock_timestamp() + ttl)
    ON CONFLICT (bot_id, contact_id, key) DO UPDATE
      SET value = CASE WHEN m.expires_at <= clock_timestamp() THEN excluded.value ELSE to_jsonb(loquat.sum_of(m.value, amount)) END,
          expires_at = CASE WHEN m.expires_at <= clock_timestamp() THEN excluded.expires_at ELSE m.expires_at END, updated_at = now()
      WHERE m.expires_at <= clock_timestamp() OR loquat.sum_of(m.value, amount) IS NOT NULL
    RETURNING (m.value #>> '{}')::bigint INTO total;
  END IF;
  IF total IS NULL THEN refused := 'number'; END IF;
END $$;

-- Null: that is no whole number, or the sum has more than 53 bits.
CREATE FUNCTION loquat.sum_of(value jsonb, amount bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE number numeric := 0;
BEGIN
  IF value IS NOT NULL THEN
    IF jsonb_typeof(value) <> 'number' THEN RETURN NULL; END IF;
    number := (value #>> '{}')::numeric;
  END IF;
  IF number <> trunc(number) OR scale(number) > 0 OR abs(number + amount) >= 9007199254740992 THEN RETURN NULL; END IF;
  RETURN number + amount;
END $$;

-- Whether there was anything.
CREATE FUNCTION loquat.memory_delete(event uuid, of_contact boolean, key text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
  contact constant uuid := loquat.rememberer(event, of_contact);
  lasted boolean;
BEGIN
  DELETE FROM loquat.bot_memories AS m USING loquat.bots AS b
  WHERE b.id = m.bot_id AND m.contact_id IS NOT DISTINCT FROM contact AND m.key = memory_delete.key
  RETURNING m.expires_at IS NULL OR m.expires_at > clock_timestamp() INTO lasted;
  RETURN coalesce(lasted, false);
END $$;

-- ---------------------------------------------------------------- what goes to the handler with begin_run's answer
-- {"contact": {"name", "language", "phone_number", "attributes"}, "config": {key: value}, "secrets": id}. Forgets what has expired besides, a little
-- at a time; what a bot's transaction holds at the moment is left for later.
CREATE FUNCTION loquat.context_of(contact uuid) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DELETE FROM loquat.bot_memories AS m WHERE m.id = ANY (ARRAY(
    SELECT e.id FROM loquat.bot_memories AS e WHERE e.expires_at <= now() ORDER BY e.expires_at LIMIT 20 FOR UPDATE SKIP LOCKED));
  RETURN jsonb_build_object(
    'contact', (SELECT jsonb_build_object('name', c.name, 'language', c.language, 'phone_number', c.phone_number, 'attributes', c.attributes)
                FROM public.contacts AS c WHERE c.id = context_of.contact),
    'config', (SELECT coalesce(jsonb_object_agg(k.key, k.value), '{}') FROM loquat.bot_configuration AS k),
    'secrets', (SELECT b.secrets FROM loquat.bots AS b));
END $$;

-- ---------------------------------------------------------------- what a result says of the contact
-- {"name", "language", "attributes": {key: value; null: not any more}}, all of them optional; null: nothing is wrong with it.
CREATE FUNCTION loquat.flaw_of_contact(contact jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF jsonb_typeof(coalesce(contact, 'null')) = 'null' THEN RETURN NULL; END IF;
  IF jsonb_typeof(contact) <> 'object' THEN RETURN 'has a contact that is not an object'; END IF;
  IF jsonb_typeof(coalesce(contact->'name', 'null')) NOT IN ('string', 'null') OR length(contact->>'name') NOT BETWEEN 1 AND 200 THEN
    RETURN 'has a contact''s name that is not a text of 1 to 200 characters';
  END IF;
  IF jsonb_typeof(coalesce(contact->'language', 'null')) NOT IN ('string', 'null')
     OR contact->>'language' !~ '^[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8}){0,3}$' THEN
    RETURN 'has a contact''s language that is no tag such as de or pt_BR';
  END IF;
  IF jsonb_typeof(coalesce(contact->'attributes', 'null')) NOT IN ('object', 'null') OR octet_length((contact->'attributes')::text) > 65536 THEN
    RETURN 'has a contact''s attributes that are not an object of at most 64 KiB';
  END IF;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION loquat.check_result(result jsonb) RETURNS void LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE flaw text := loquat.flaw_of_result(result);
BEGIN
  IF flaw IS NULL THEN flaw := loquat.flaw_of_contact(result->'contact'); END IF;
  IF flaw IS NOT NULL THEN RAISE EXCEPTION 'the result %', flaw USING ERRCODE = 'LQ001'; END IF;
END $$;

-- Attributes that would have more than 64 KiB together with those that are there stay as they are: the SDK has refused them, so two conversations
-- of one contact were at it, and what is stored must be applicable. commit_run has locked the contact, in the order of 0002.
CREATE FUNCTION loquat.apply_contact(conversation uuid, given jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE c public.contacts; merged jsonb;
BEGIN
  SELECT k.* INTO STRICT c FROM public.conversations AS v JOIN public.contacts AS k ON k.id = v.contact_id WHERE v.id = conversation FOR NO KEY UPDATE OF k;
  merged := (c.attributes || coalesce(nullif(given->'attributes', 'null'), '{}'))
            - ARRAY(SELECT a.key FROM jsonb_each(nullif(given->'attributes', 'null')) AS a WHERE a.value = 'null');
  UPDATE public.contacts AS k
  SET name = coalesce(given->>'name', k.name), language = coalesce(given->>'language', k.language),
      attributes = CASE WHEN octet_length(merged::text) <= 65536 THEN merged ELSE k.attributes END, updated_at = now()
  WHERE k.id = c.id;
END $$;

-- As in 0003, and the contact.
CREATE OR REPLACE FUNCTION loquat.apply_result(x loquat.events, r loquat.results) RETURNS void
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
  IF jsonb_typeof(r.result->'contact') = 'object' AND x.kind <> 'order' THEN
    PERFORM loquat.apply_contact(r.conversation_id, r.result->'contact');
  END IF;
END $$;

-- Locks the contact of whom an event's result (the one that is recorded, else the given one) notes something: before its conversation, in the order of
-- 0002. A conversation that becomes another contact's in between has another version then, and nothing is applied.
CREATE FUNCTION loquat.lock_noted(x loquat.events, given jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF coalesce((SELECT s.result FROM loquat.results AS s WHERE s.event_id = x.id), given) ? 'contact' THEN
    PERFORM FROM public.contacts AS k WHERE k.id = (SELECT v.contact_id FROM public.conversations AS v WHERE v.id = x.conversation_id) FOR NO KEY UPDATE;
  END IF;
END $$;

-- As in 0003, behind that lock.
CREATE OR REPLACE FUNCTION loquat.commit_run(event uuid, expected_version bigint DEFAULT NULL, result jsonb DEFAULT NULL)
RETURNS TABLE (status text, outbox jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
#variable_conflict use_column
DECLARE x loquat.events; c public.conversations; r loquat.results;
BEGIN
  SELECT * INTO x FROM loquat.events AS e WHERE e.id = event AND e.kind <> 'update';
  IF NOT FOUND THEN RAISE EXCEPTION 'unknown event' USING ERRCODE = 'LQ004'; END IF;
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

-- ---------------------------------------------------------------- memories of a contact that is merged or erased: for the functions that do so
-- What `target` remembers itself stays.
CREATE FUNCTION loquat.merge_memories(contact uuid, target uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE bot constant uuid := loquat.this_bot();
BEGIN
  DELETE FROM loquat.bot_memories AS m WHERE m.bot_id = bot AND m.contact_id = target AND m.expires_at <= now();
  DELETE FROM loquat.bot_memories AS m WHERE m.bot_id = bot AND m.contact_id = contact AND (m.expires_at <= now() OR EXISTS (
    SELECT FROM loquat.bot_memories AS t WHERE t.bot_id = bot AND t.contact_id = target AND t.key = m.key));
  UPDATE loquat.bot_memories AS m SET contact_id = target WHERE m.bot_id = bot AND m.contact_id = contact;
END $$;

-- How many it has forgotten, at most `batch`.
CREATE FUNCTION loquat.forget_memories(people uuid[], batch int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE bot constant uuid := loquat.this_bot(); forgotten int;
BEGIN
  DELETE FROM loquat.bot_memories AS m WHERE m.id = ANY (ARRAY(
    SELECT d.id FROM loquat.bot_memories AS d WHERE d.bot_id = bot AND d.contact_id = ANY (people) ORDER BY d.id LIMIT batch FOR UPDATE));
  GET DIAGNOSTICS forgotten = ROW_COUNT;
  RETURN forgotten;
END $$;

-- ---------------------------------------------------------------- configuration and secrets: the platform's, in the owner's name
-- Limits: 16 KiB a value, 500 keys, 256 KiB together: it goes with every call of the bot.
CREATE FUNCTION loquat.configure(key text, value jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
#variable_conflict use_column
DECLARE
  bot constant uuid := loquat.this_bot();
  keys bigint; bytes bigint;
BEGIN
  IF (length(configure.key) BETWEEN 1 AND 200) IS NOT TRUE THEN RAISE EXCEPTION 'a key has 1 to 200 characters' USING ERRCODE = 'LQ005'; END IF;
  IF (octet_length(configure.value::text) <= 16384) IS NOT TRUE THEN RAISE EXCEPTION 'a value has at most 16 KiB' USING ERRCODE = 'LQ005'; END IF;
  PERFORM FROM loquat.bots AS b WHERE b.id = bot FOR NO KEY UPDATE;     -- one after the other, or the limits would be none
  INSERT INTO loquat.bot_configuration (bot_id, key, value) VALUES (bot, configure.key, configure.value)
  ON CONFLICT (bot_id, key) DO UPDATE SET value = excluded.value, updated_at = now();
  SELECT count(*), sum(octet_length(c.key) + octet_length(c.value::text)) INTO keys, bytes FROM loquat.bot_configuration AS c WHERE c.bot_id = bot;
  IF keys > 500 THEN RAISE EXCEPTION 'a bot has at most 500 keys' USING ERRCODE = 'LQ005'; END IF;
  IF bytes > 262144 THEN RAISE EXCEPTION 'a bot''s configuration has at most 256 KiB' USING ERRCODE = 'LQ005'; END IF;
END $$;

CREATE FUNCTION loquat.unconfigure(key text) RETURNS boolean LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
  WITH gone AS (DELETE FROM loquat.bot_configuration AS c WHERE c.key = unconfigure.key RETURNING true) SELECT EXISTS (SELECT FROM gone)
$$;

CREATE FUNCTION loquat.configuration() RETURNS TABLE (key text, value jsonb, created_at timestamptz, updated_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC SELECT c.key, c.value, c.created_at, c.updated_at FROM loquat.bot_configuration AS c ORDER BY c.key; END;

-- From the next event on: a runner that knows another id reads them again. Random, so that no restored copy of this database repeats one.
CREATE FUNCTION loquat.secrets_changed() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE bot constant uuid := loquat.this_bot();
BEGIN
  UPDATE loquat.bots AS b SET secrets = gen_random_uuid(), updated_at = now() WHERE b.id = bot;
END $$;

-- Whose bot it is, for people: known to the provisioner.
CREATE FUNCTION loquat.name_bot(name text, organization text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE bot constant uuid := loquat.this_bot();
BEGIN
  UPDATE loquat.bots AS b SET name = name_bot.name, org_id = organization, updated_at = now() WHERE b.id = bot;
END $$;

-- What a project's own logins may call.
CREATE FUNCTION loquat.let_call(owner name) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('GRANT EXECUTE ON FUNCTION loquat.record_result, loquat.memory_get, loquat.memory_set, loquat.memory_increment, loquat.memory_delete TO %I',
                 owner);
END $$;

-- As in 0005, and the bot.
CREATE OR REPLACE FUNCTION loquat.open_project(project text, epoch bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE owner constant name := current_database() || '_owner';
BEGIN
  INSERT INTO loquat.identity (project, epoch, bot_login) VALUES (open_project.project, open_project.epoch, current_database() || '_bot')
  ON CONFLICT (singleton) DO UPDATE SET project = excluded.project, epoch = excluded.epoch, bot_login = excluded.bot_login
  WHERE identity.epoch < excluded.epoch;
  PERFORM loquat.this_bot();
  EXECUTE format('GRANT USAGE, CREATE ON SCHEMA public TO %I', owner);
  EXECUTE format('GRANT SELECT ON public.contacts, public.conversations, public.messages TO %I', owner);
  EXECUTE format('GRANT USAGE ON SCHEMA loquat TO %I', owner);
  PERFORM loquat.let_call(owner);
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA loquat FROM PUBLIC;
GRANT EXECUTE ON FUNCTION loquat.context_of, loquat.configure, loquat.unconfigure, loquat.configuration, loquat.secrets_changed TO loquat_bot_runner;
GRANT EXECUTE ON FUNCTION loquat.name_bot TO loquat_provisioner;

-- A database that is a project's already.
DO $$
DECLARE owner text;
BEGIN
  SELECT regexp_replace(i.bot_login::text, '_bot$', '_owner') INTO owner FROM loquat.identity AS i;
  IF owner IS NULL THEN RETURN; END IF;
  PERFORM loquat.this_bot();
  IF to_regrole(quote_ident(owner)) IS NOT NULL THEN PERFORM loquat.let_call(owner::name); END IF;
END $$;
