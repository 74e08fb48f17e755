-- Deferred rows, in the schema of the service that reads. `seq` IS the event's offset: a lane's order needs no counter of its own, a repeated
-- append meets the key, and an event that comes again with a lower offset sorts in front, where it belongs.

CREATE TABLE deferred_owner (            -- the fence: whoever claimed last may write
    group_name text   NOT NULL,
    partition  text   NOT NULL,
    epoch      bigint NOT NULL,
    PRIMARY KEY (group_name, partition)
);

CREATE TABLE deferred (
    id         bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,  -- for people: the number of a dead letter
    group_name text        NOT NULL,
    partition  text        NOT NULL,
    seq        bigint      NOT NULL,
    event_id   text        NOT NULL,
    lane       text        NOT NULL,
    project    text        NOT NULL,
    event      bytea       NOT NULL,
    state      text        NOT NULL CHECK (state IN ('deferred', 'dead', 'discarded')),
    head       boolean     NOT NULL DEFAULT false,  -- first deferred row of its lane: the only one that may run
    attempts   int         NOT NULL,
    next_at    timestamptz NOT NULL,
    reason     text        NOT NULL,
    redriven   boolean     NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz,
    -- event_id: after a topic was made anew an old row may carry the same offset; it must not swallow a new event
    PRIMARY KEY (group_name, partition, seq, event_id)
);
CREATE INDEX deferred_lane ON deferred (group_name, partition, lane, seq) WHERE state = 'deferred';
CREATE INDEX deferred_head ON deferred (group_name, partition, project, next_at, seq) WHERE state = 'deferred' AND head;
CREATE INDEX deferred_dead ON deferred (project, id) WHERE state <> 'deferred';
CREATE INDEX deferred_waiting ON deferred (project) WHERE state = 'deferred';

-- purpose: become the owner. Waits for a write of the old owner that is under way; refuses all its later ones.
CREATE FUNCTION deferred_claim(g text, p text) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO deferred_owner VALUES (g, p, 1)
    ON CONFLICT (group_name, partition) DO UPDATE SET epoch = deferred_owner.epoch + 1 RETURNING epoch $$;

-- purpose: the lowest deferred row of each lane is its head. Two index look-ups per lane, however long the lane is.
CREATE FUNCTION deferred_heads(g text, p text, names text[]) RETURNS void LANGUAGE sql AS $$
    WITH lowest AS (
        SELECT l, (SELECT seq FROM deferred d WHERE d.group_name = g AND d.partition = p AND d.lane = l AND d.state = 'deferred' ORDER BY seq LIMIT 1) AS seq
        FROM (SELECT DISTINCT unnest(names) l) u)
    UPDATE deferred d SET head = (d.seq = lowest.seq) FROM lowest
    WHERE d.group_name = g AND d.partition = p AND d.lane = lowest.l AND d.state = 'deferred'
      AND (d.seq = lowest.seq AND NOT d.head OR d.head AND d.seq > lowest.seq) $$;

-- purpose: one write of the owner: append, reschedule, end, delete; then the lanes that still have deferred rows.
-- Every statement sees what committed before it (plpgsql, read committed), so a redrive from outside is either seen here or finds its own head.
CREATE FUNCTION deferred_settle(
    g text, p text, e bigint, seqs bigint[], ids text[], lanes text[], projects text[], events bytea[],
    states text[], fresh boolean[], tries int[], delays float[], reasons text[]) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE filled text[]; base timestamptz := clock_timestamp();
BEGIN
    PERFORM 1 FROM deferred_owner WHERE group_name = g AND partition = p AND epoch = e FOR SHARE;
    IF NOT FOUND THEN RAISE EXCEPTION 'fenced' USING ERRCODE = 'LQ101'; END IF;

    INSERT INTO deferred (group_name, partition, seq, event_id, lane, project, event, state, attempts, next_at, reason, ended_at)
    SELECT g, p, s, i, l, pr, ev, st, t, base + n * interval '1 second', r, CASE WHEN st = 'dead' THEN base END
    FROM unnest(seqs, ids, lanes, projects, events, states, fresh, tries, delays, reasons) AS u(s, i, l, pr, ev, st, f, t, n, r) WHERE f
    ON CONFLICT DO NOTHING;

    DELETE FROM deferred d USING unnest(seqs, ids, states, fresh) AS u(s, i, st, f)
    WHERE NOT f AND st = 'done' AND d.group_name = g AND d.partition = p AND d.seq = s AND d.event_id = i;

    UPDATE deferred d SET state = st, attempts = t, next_at = base + n * interval '1 second', reason = r, head = d.head AND st = 'deferred',
                          ended_at = CASE WHEN st = 'dead' THEN base END
    FROM unnest(seqs, ids, states, fresh, tries, delays, reasons) AS u(s, i, st, f, t, n, r)
    WHERE NOT f AND st <> 'done' AND d.group_name = g AND d.partition = p AND d.seq = s AND d.event_id = i;

    PERFORM deferred_heads(g, p, lanes);
    SELECT coalesce(array_agg(l), '{}') INTO filled FROM (SELECT DISTINCT unnest(lanes) l) u
    WHERE EXISTS (SELECT FROM deferred d WHERE d.group_name = g AND d.partition = p AND d.lane = l AND d.state = 'deferred');
    RETURN filled;
END $$;

-- purpose: due heads, at most `share` of each project (loose scan: one look-up per project, not one per row).
CREATE FUNCTION deferred_due(g text, p text, upto bigint, skip_projects text[], skip_lanes text[], share int, most int)
RETURNS SETOF deferred LANGUAGE sql STABLE AS $$
    WITH RECURSIVE names AS (
        (SELECT project FROM deferred WHERE group_name = g AND partition = p AND state = 'deferred' AND head ORDER BY project LIMIT 1)
        UNION ALL
        SELECT (SELECT d.project FROM deferred d WHERE d.group_name = g AND d.partition = p AND d.state = 'deferred' AND d.head
                AND d.project > names.project ORDER BY d.project LIMIT 1)
        FROM names WHERE names.project IS NOT NULL)
    SELECT d.* FROM names CROSS JOIN LATERAL (
        SELECT * FROM deferred d WHERE d.group_name = g AND d.partition = p AND d.state = 'deferred' AND d.head
          AND d.project = names.project AND d.next_at <= statement_timestamp() AND d.seq < upto AND d.lane <> ALL (skip_lanes)
        ORDER BY d.next_at, d.seq LIMIT share) d
    WHERE names.project IS NOT NULL AND names.project <> ALL (skip_projects)
    ORDER BY d.next_at LIMIT most $$;

-- purpose: a person's wish; any process. Out of the lane's order by design; the owner learns of it by its next probe.
CREATE FUNCTION deferred_redrive(number bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE r deferred;
BEGIN
    SELECT * INTO r FROM deferred WHERE id = number;
    PERFORM 1 FROM deferred_owner WHERE group_name = r.group_name AND partition = r.partition FOR UPDATE;  -- not beside a write of the owner
    UPDATE deferred SET state = 'deferred', redriven = true, attempts = 0, next_at = clock_timestamp(), reason = 'redriven', ended_at = NULL
    WHERE id = number AND state = 'dead';
    IF NOT FOUND THEN RETURN false; END IF;
    PERFORM deferred_heads(r.group_name, r.partition, ARRAY[r.lane]);
    RETURN true;
END $$;
