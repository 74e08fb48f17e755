-- The bus on Postgres, in schema bus of the control database. Offsets are dense and in commit order: the head row of a partition is locked
-- from the taking of an offset to the commit. (Serial ids are taken before the commit, so a reader would skip late ones.)

CREATE TABLE topic (topic text PRIMARY KEY, partitions int NOT NULL, compacted boolean NOT NULL DEFAULT false);

CREATE TABLE producer (topic text REFERENCES topic, role text, PRIMARY KEY (topic, role));  -- from the catalog: who may publish where

CREATE TABLE head (topic text, partition int, next_offset bigint NOT NULL DEFAULT 0, PRIMARY KEY (topic, partition)) WITH (fillfactor = 50);

CREATE TABLE event (
    topic text NOT NULL, partition int NOT NULL, seq bigint NOT NULL, published_at timestamptz NOT NULL,
    event_id text NOT NULL, project text NOT NULL, lane text NOT NULL, value bytea,
    PRIMARY KEY (topic, partition, seq, published_at)) PARTITION BY RANGE (published_at);

CREATE TABLE latest (                 -- compacted topics: the last value of each key
    topic text, key text, partition int NOT NULL, seq bigint NOT NULL, project text NOT NULL, lane text NOT NULL, value bytea,
    PRIMARY KEY (topic, key));

CREATE TABLE lease (                  -- who works; correctness does not depend on it, the epoch decides
    group_name text, topic text, partition int, cursor bigint NOT NULL DEFAULT 0, epoch bigint NOT NULL DEFAULT 0,
    owner text, until timestamptz NOT NULL DEFAULT '-infinity', PRIMARY KEY (group_name, topic, partition)) WITH (fillfactor = 50);

CREATE TABLE member (group_name text, member text, topics text[] NOT NULL, until timestamptz NOT NULL, PRIMARY KEY (group_name, member));

-- purpose: publish n events of any topics and partitions in one call. Sorted locks: no deadlock between publishers.
CREATE FUNCTION publish(topics text[], parts int[], ids text[], projects text[], lanes text[], vals bytea[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE at timestamptz := clock_timestamp(); stranger text;
BEGIN
    SELECT t INTO stranger FROM unnest(topics) t WHERE NOT EXISTS (SELECT FROM bus.producer p WHERE p.topic = t AND p.role = session_user) LIMIT 1;
    IF FOUND THEN RAISE insufficient_privilege USING MESSAGE = format('%s may not publish to %s', session_user, stranger); END IF;

    PERFORM 1 FROM bus.head h WHERE (h.topic, h.partition) IN (SELECT DISTINCT * FROM unnest(topics, parts))
    ORDER BY h.topic, h.partition FOR UPDATE;

    INSERT INTO bus.event
    SELECT u.t, u.p, h.next_offset + row_number() OVER (PARTITION BY u.t, u.p ORDER BY u.n) - 1, at, u.i, u.pr, u.l, u.v
    FROM unnest(topics, parts, ids, projects, lanes, vals) WITH ORDINALITY AS u(t, p, i, pr, l, v, n)
    JOIN bus.head h ON h.topic = u.t AND h.partition = u.p;

    INSERT INTO bus.latest
    SELECT DISTINCT ON (u.t, u.pr, u.l) u.t, u.pr || ':' || u.l, u.p, h.next_offset + u.k - 1, u.pr, u.l, u.v
    FROM (SELECT w.*, row_number() OVER (PARTITION BY w.t, w.p ORDER BY w.n) AS k
          FROM unnest(topics, parts, ids, projects, lanes, vals) WITH ORDINALITY AS w(t, p, i, pr, l, v, n)) u
    JOIN bus.topic o ON o.topic = u.t AND o.compacted JOIN bus.head h ON h.topic = u.t AND h.partition = u.p
    ORDER BY u.t, u.pr, u.l, u.n DESC
    ON CONFLICT (topic, key) DO UPDATE SET partition = excluded.partition, seq = excluded.seq, value = excluded.value;

    UPDATE bus.head h SET next_offset = next_offset + c.n
    FROM (SELECT t, p, count(*) n FROM unnest(topics, parts) AS u(t, p) GROUP BY 1, 2) c
    WHERE h.topic = c.t AND h.partition = c.p;
END $$;

-- purpose: one round trip for all partitions of a member. At least one event each; beyond that at most `bytes` each. `next_offset`: where
-- the partition ended, so that the reader knows whether there is more.
CREATE FUNCTION read(topics text[], parts int[], froms bigint[], most int, bytes bigint)
RETURNS TABLE (topic text, partition int, seq bigint, event_id text, project text, lane text, value bytea, next_offset bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT e.topic, e.partition, e.seq, e.event_id, e.project, e.lane, e.value, h.next_offset
    FROM unnest(topics, parts, froms) AS w(t, p, f)
    JOIN bus.head h ON h.topic = w.t AND h.partition = w.p AND h.next_offset > w.f
    CROSS JOIN LATERAL (
        SELECT b.*, sum(coalesce(octet_length(b.value), 0)) OVER (ORDER BY b.seq) AS total, row_number() OVER (ORDER BY b.seq) AS n FROM (
            SELECT * FROM bus.event b WHERE b.topic = w.t AND b.partition = w.p AND b.seq >= w.f ORDER BY b.seq LIMIT most) b) e
    WHERE e.total <= bytes OR e.n = 1
    ORDER BY e.topic, e.partition, e.seq $$;

-- purpose: heartbeat of a member, and its assignment: keep mine, give back what is over my share (only what `idle` names: the caller has let go
-- of it), take what is free or lapsed. One member at a time per group.
CREATE FUNCTION beat(g text, m text, topics text[], span interval, idle text[])
RETURNS TABLE (topic text, partition int, epoch bigint, cursor bigint, surplus int)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE share int; mine int;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('bus beat ' || g, 0));  -- for milliseconds; never held while frozen
    DELETE FROM bus.member b WHERE b.group_name = g AND b.until < clock_timestamp() - interval '1 hour';
    INSERT INTO bus.member VALUES (g, m, topics, clock_timestamp() + span)
    ON CONFLICT (group_name, member) DO UPDATE SET until = excluded.until, topics = excluded.topics;
    INSERT INTO bus.lease (group_name, topic, partition)
    SELECT g, h.topic, h.partition FROM bus.head h WHERE h.topic = ANY (topics) ON CONFLICT DO NOTHING;

    UPDATE bus.lease SET owner = NULL, until = '-infinity' WHERE group_name = g AND owner = m AND topic || '/' || partition = ANY (idle);
    -- a lease that lapsed is not extended, even if nobody took it: this member may have slept
    UPDATE bus.lease SET until = clock_timestamp() + span WHERE group_name = g AND owner = m AND until > clock_timestamp();

    SELECT ceil(count(*)::numeric / greatest(1, (SELECT count(*) FROM bus.member b WHERE b.group_name = g AND b.until > clock_timestamp())))
    INTO share FROM bus.lease l WHERE l.group_name = g AND l.topic = ANY (topics);
    SELECT count(*) INTO mine FROM bus.lease l WHERE l.group_name = g AND l.owner = m AND l.until > clock_timestamp();

    UPDATE bus.lease l SET owner = m, epoch = l.epoch + 1, until = clock_timestamp() + span
    FROM (SELECT l2.topic t, l2.partition p FROM bus.lease l2 WHERE l2.group_name = g AND l2.topic = ANY (topics)
          AND (l2.owner IS NULL OR l2.until <= clock_timestamp()) ORDER BY l2.topic, l2.partition LIMIT greatest(0, share - mine)) free
    WHERE l.group_name = g AND l.topic = free.t AND l.partition = free.p;

    RETURN QUERY SELECT l.topic, l.partition, l.epoch, l.cursor, greatest(0, mine - share)
    FROM bus.lease l WHERE l.group_name = g AND l.owner = m AND l.until > clock_timestamp();
END $$;

-- purpose: leave the group at once; what was owned is free.
CREATE FUNCTION leave(g text, m text) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE bus.lease SET owner = NULL, until = '-infinity' WHERE group_name = g AND owner = m;
    DELETE FROM bus.member WHERE group_name = g AND member = m $$;

-- purpose: move cursors forward; returns those refused because the epoch is gone.
CREATE FUNCTION commit(g text, topics text[], parts int[], epochs bigint[], cursors bigint[]) RETURNS text[]
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH wanted AS (SELECT * FROM unnest(topics, parts, epochs, cursors) AS u(t, p, e, c)),
    done AS (UPDATE bus.lease l SET cursor = greatest(l.cursor, c) FROM wanted
             WHERE l.group_name = g AND l.topic = t AND l.partition = p AND l.epoch = e RETURNING l.topic, l.partition)
    SELECT coalesce(array_agg(t || '/' || p), '{}') FROM wanted WHERE (t, p) NOT IN (SELECT topic, partition FROM done) $$;

-- purpose: one member's cursor, read after its rows were claimed.
CREATE FUNCTION cursor_of(g text, t text, p int) RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT cursor FROM bus.lease WHERE group_name = g AND topic = t AND partition = p $$;

-- purpose: events above the cursor, by topic and partition.
CREATE FUNCTION lag(g text, topics text[]) RETURNS TABLE (topic text, partition int, events bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT h.topic, h.partition, h.next_offset - coalesce(l.cursor, 0) FROM bus.head h
    LEFT JOIN bus.lease l ON l.group_name = g AND l.topic = h.topic AND l.partition = h.partition WHERE h.topic = ANY (topics) $$;

-- purpose: where the partitions of a topic end.
CREATE FUNCTION heads(t text) RETURNS TABLE (partition int, next_offset bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT h.partition, h.next_offset FROM bus.head h WHERE h.topic = t $$;

-- purpose: the last value of every key of a compacted topic.
CREATE FUNCTION snapshot(t text) RETURNS TABLE (project text, lane text, value bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT l.project, l.lane, l.value FROM bus.latest l WHERE l.topic = t AND octet_length(l.value) > 0 $$;

-- purpose: ranges ahead of the clock (publishing fails without one) and none older than is kept. Dropped, not deleted. Any process, any time.
CREATE FUNCTION tend(days_ahead int, days_kept int) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE today date := (now() AT TIME ZONE 'UTC')::date; child text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('bus tend', 0));
    FOR i IN 0 .. days_ahead LOOP
        child := 'event_' || to_char(today + i, 'YYYYMMDD');
        IF to_regclass('bus.' || child) IS NULL THEN
            EXECUTE format('CREATE TABLE bus.%I PARTITION OF bus.event FOR VALUES FROM (%L) TO (%L)', child, today + i || ' 00:00+00', today + i + 1 || ' 00:00+00');
        END IF;
    END LOOP;
    FOR child IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'bus.event'::regclass
                 AND c.relname < 'event_' || to_char(today - days_kept, 'YYYYMMDD') LOOP
        EXECUTE format('DROP TABLE bus.%I', child);
    END LOOP;
END $$;

REVOKE ALL ON ALL TABLES IN SCHEMA bus FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA bus FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA bus TO loquat_platform;
