-- What comes in: record_inbound and its parts.
--
-- Rules of all platform functions: SECURITY DEFINER and owned by loquat_system, SET search_path = pg_catalog, pg_temp, every name outside
-- pg_catalog qualified, arguments of built-in types only (so no operator or cast of a tenant can be chosen), EXECUTE by name after its file.
-- Locks are taken in one order everywhere, sorted within each step: keys of receipts, addresses, contacts, conversations, events, messages,
-- results.

-- An id that follows from an event: UUID version 8 of a sha256. (uuid5 needs sha1, which Postgres has only in pgcrypto.) n from 1: the n-th
-- reply to the event; -1: the contact that the event was the first to name.
CREATE FUNCTION loquat.reply_id(event uuid, n int) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (SELECT encode(set_byte(set_byte(h, 6, get_byte(h, 6) & 15 | 128), 8, get_byte(h, 8) & 63 | 128), 'hex')::uuid
        FROM (SELECT substring(sha256(uuid_send(event) || int4send(n)) FOR 16) AS h) AS digest);

-- Text that should be JSON; what is not becomes a JSON string. It may hold what jsonb refuses (U+0000, lone surrogates): it stays text.
CREATE FUNCTION loquat.as_json(raw text) RETURNS json LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF pg_input_is_valid(raw, 'json') THEN RETURN raw::json; END IF;
  RETURN to_json(raw);
END $$;

-- The contact of each element, in the same order. The first address that is known decides; a person of whom none is known is created;
-- addresses that came along and belong to nobody are his from now on, and so are a name and a phone number where he has none.
CREATE FUNCTION loquat.find_contacts(elements jsonb[]) RETURNS uuid[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE found uuid[];
BEGIN
  -- The unique key of addresses decides who creates the contact.
  WITH wanted AS (
    SELECT DISTINCT ON (kind, value) u.e->'addresses'->0->>'kind' AS kind, u.e->'addresses'->0->>'value' AS value,
           loquat.reply_id((u.e->>'id')::uuid, -1) AS contact_id
    FROM unnest(elements) WITH ORDINALITY AS u(e, n)
    WHERE jsonb_array_length(u.e->'addresses') > 0
      AND NOT EXISTS (SELECT FROM jsonb_array_elements(u.e->'addresses') AS b
                      JOIN loquat.addresses AS k ON (k.kind, k.value) = (b->>'kind', b->>'value'))
    ORDER BY 1, 2, u.n
  ), taken AS (
    INSERT INTO loquat.addresses (kind, value, contact_id) SELECT kind, value, contact_id FROM wanted ORDER BY kind, value
    ON CONFLICT DO NOTHING RETURNING contact_id
  )
  INSERT INTO public.contacts (id) SELECT contact_id FROM taken ORDER BY contact_id;

  SELECT array_agg(p.contact_id ORDER BY u.n) INTO found
  FROM unnest(elements) WITH ORDINALITY AS u(e, n) LEFT JOIN LATERAL (
    SELECT k.contact_id FROM jsonb_array_elements(u.e->'addresses') WITH ORDINALITY AS b(a, n)
    JOIN loquat.addresses AS k ON (k.kind, k.value) = (b.a->>'kind', b.a->>'value') ORDER BY b.n LIMIT 1) AS p ON true;
  IF array_position(found, NULL) IS NOT NULL THEN
    RAISE EXCEPTION 'an event names nobody: % has no addresses', elements[array_position(found, NULL)]->>'id' USING ERRCODE = '22023';
  END IF;

  INSERT INTO loquat.addresses (kind, value, contact_id)
  SELECT DISTINCT ON (a->>'kind', a->>'value') a->>'kind', a->>'value', u.contact_id
  FROM unnest(elements, found) WITH ORDINALITY AS u(e, contact_id, n), jsonb_array_elements(u.e->'addresses') AS a
  WHERE NOT EXISTS (SELECT FROM loquat.addresses AS k WHERE (k.kind, k.value) = (a->>'kind', a->>'value'))
  ORDER BY a->>'kind', a->>'value', u.n
  ON CONFLICT DO NOTHING;

  WITH given AS (
    SELECT u.contact_id, (array_agg(u.e->>'name' ORDER BY u.n) FILTER (WHERE u.e->>'name' <> ''))[1] AS name
    FROM unnest(elements, found) WITH ORDINALITY AS u(e, contact_id, n) GROUP BY 1 ORDER BY 1
  )
  UPDATE public.contacts AS c SET name = coalesce(c.name, g.name), phone_number = coalesce(c.phone_number, p.value), updated_at = now()
  FROM given AS g LEFT JOIN LATERAL (
    SELECT a.value FROM loquat.addresses AS a
    WHERE a.contact_id = g.contact_id AND a.kind = 'phone' AND NOT EXISTS (SELECT FROM public.contacts AS o WHERE o.phone_number = a.value)
    ORDER BY a.value LIMIT 1) AS p ON true
  WHERE c.id = g.contact_id AND (c.name IS NULL AND g.name IS NOT NULL OR c.phone_number IS NULL AND p.value IS NOT NULL);
  RETURN found;
END $$;

-- The open conversation of each contact and number, in the same order; opened where there is none.
CREATE FUNCTION loquat.find_conversations(contacts uuid[], numbers text[]) RETURNS uuid[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE found uuid[];
BEGIN
  FOR attempt IN 1..3 LOOP                                  -- another transaction may close one between the two statements
    INSERT INTO public.conversations (contact_id, number_id)
    SELECT DISTINCT u.contact_id, u.number_id FROM unnest(contacts, numbers) AS u(contact_id, number_id)
    WHERE NOT EXISTS (SELECT FROM public.conversations AS c WHERE (c.contact_id, c.number_id, c.status) = (u.contact_id, u.number_id, 'open'))
    ORDER BY u.contact_id, u.number_id
    ON CONFLICT DO NOTHING;
    SELECT array_agg(c.id ORDER BY u.n) INTO found
    FROM unnest(contacts, numbers) WITH ORDINALITY AS u(contact_id, number_id, n)
    LEFT JOIN public.conversations AS c ON (c.contact_id, c.number_id, c.status) = (u.contact_id, u.number_id, 'open');
    IF array_position(found, NULL) IS NULL THEN RETURN found; END IF;
  END LOOP;
  RAISE EXCEPTION 'a conversation closes faster than it can be used' USING ERRCODE = '40001';
END $$;

-- Records inbound events of any number, once each. An element:
--   {"id", "kind": "message" | "order" | "update", "number_id", "addresses": [{"kind", "value"}, ...], "name",
--    "message": {"type", "text", "content", "raw", "wamid", "reply_to", "sent_at"}, "update": {"field", "raw"}}
-- A message gets a row; an order (a person's) opens a conversation and gets its row when it is handled; an update belongs to no conversation:
-- it is counted, and kept as it came. Answers one row per distinct event; fresh is false for one recorded before.
-- raw is a string that holds JSON: jsonb refuses U+0000 and lone surrogates, and one such message would fail its whole batch. The caller
-- takes both out of every other text. Joins are nested loops by decree: the planner takes any batch for 100 rows and, before the first
-- ANALYZE, reads whole tables for one event.
CREATE FUNCTION loquat.record_inbound(events jsonb) RETURNS TABLE (event_id uuid, conversation_id uuid, fresh boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
  given uuid[]; added uuid[] := '{}'; counted uuid[] := '{}';
  ids uuid[]; elements jsonb[]; conversations uuid[];       -- aligned: the events to record that belong to a conversation
BEGIN
  -- An event seen before must not open a conversation again.
  WITH distinct_events AS (
    SELECT DISTINCT ON (id) (v.e->>'id')::uuid AS id, v.e, v.n FROM jsonb_array_elements(events) WITH ORDINALITY AS v(e, n) ORDER BY id, v.n
  )
  SELECT array_agg(d.id), array_agg(d.id ORDER BY d.n) FILTER (WHERE f AND NOT u), array_agg(d.e ORDER BY d.n) FILTER (WHERE f AND NOT u)
  INTO given, ids, elements
  FROM distinct_events AS d, LATERAL (SELECT NOT EXISTS (SELECT FROM loquat.events AS x WHERE x.id = d.id) AS f, d.e->>'kind' = 'update' AS u) AS of_it;

  IF cardinality(ids) > 1 AND loquat.is_tangled(elements) THEN
    FOR n IN 1..cardinality(elements) LOOP
      added := added || ARRAY(SELECT r.event_id FROM loquat.record_inbound(jsonb_build_array(elements[n])) AS r WHERE r.fresh);
    END LOOP;
  ELSIF ids IS NOT NULL THEN
    DECLARE
      contacts constant uuid[] := loquat.find_contacts(elements);
    BEGIN
      conversations := loquat.find_conversations(contacts, ARRAY(SELECT u.e->>'number_id' FROM unnest(elements) WITH ORDINALITY AS u(e, n) ORDER BY u.n));
    END;
    WITH recorded AS (
      INSERT INTO loquat.events (id, kind, conversation_id)
      SELECT u.id, u.e->>'kind', u.conversation_id FROM unnest(ids, elements, conversations) AS u(id, e, conversation_id) ORDER BY u.id
      ON CONFLICT (id) DO NOTHING RETURNING id
    )
    SELECT coalesce(array_agg(id), '{}') INTO added FROM recorded;

    INSERT INTO public.messages (id, conversation_id, direction, type, text, content, raw, wamid, reply_to, sender, status, sent_at)
    SELECT u.id, u.conversation_id, 'in', coalesce(m.type, 'unknown'), m.text, nullif(m.content, 'null'), loquat.as_json(m.raw), m.wamid, m.reply_to,
           'contact', 'received', coalesce(m.sent_at, now())
    FROM unnest(ids, elements, conversations) AS u(id, e, conversation_id),
         jsonb_to_record(u.e->'message') AS m(type text, text text, content jsonb, raw text, wamid text, reply_to text, sent_at timestamptz)
    WHERE u.e->>'kind' = 'message' AND u.id = ANY (added)
    ORDER BY u.id
    ON CONFLICT (id) DO NOTHING;
  END IF;

  IF jsonb_path_exists(events, '$[*] ? (@.kind == "update")') THEN counted := loquat.record_updates(events); END IF;

  RETURN QUERY SELECT x.id, x.conversation_id, x.id = ANY (added || counted) FROM loquat.events AS x WHERE x.id = ANY (given);
END $$;

-- Whether one address comes in two elements whose first addresses differ: taken together they could make two contacts of one person, so they
-- are taken one after the other.
CREATE FUNCTION loquat.is_tangled(elements jsonb[]) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM unnest(elements) AS u(e), jsonb_array_elements(u.e->'addresses') AS a
                 GROUP BY a HAVING min((u.e->'addresses'->0)::text) <> max((u.e->'addresses'->0)::text))
$$;

CREATE FUNCTION loquat.record_updates(events jsonb) RETURNS uuid[]
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH updates AS (
    SELECT DISTINCT ON (id) (e->>'id')::uuid AS id, e FROM jsonb_array_elements(events) AS v(e) WHERE e->>'kind' = 'update' ORDER BY id
  ), recorded AS (
    INSERT INTO loquat.events (id, kind) SELECT id, 'update' FROM updates ORDER BY id ON CONFLICT (id) DO NOTHING RETURNING id
  ), kept AS (
    INSERT INTO loquat.updates (event_id, number_id, field, addresses, raw)
    SELECT u.id, u.e->>'number_id', u.e->'update'->>'field', coalesce(u.e->'addresses', '[]'), loquat.as_json(u.e->'update'->>'raw')
    FROM updates AS u JOIN recorded USING (id) WHERE u.e ? 'update' ORDER BY u.id
  )
  SELECT coalesce(array_agg(id), '{}') FROM recorded
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA loquat FROM PUBLIC;   -- belt besides the default privileges
GRANT EXECUTE ON FUNCTION loquat.record_inbound TO loquat_conversation_log, loquat_bot_runner;
