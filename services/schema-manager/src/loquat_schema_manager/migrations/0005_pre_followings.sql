-- What link columns of projects' own tables follow: a contact was merged, or a person erased. One per event; ids and names only.
CREATE TABLE followings (
    id           uuid        NOT NULL PRIMARY KEY,              -- the event's
    order_id     uuid        NOT NULL,
    project_id   text        NOT NULL,
    epoch        bigint      NOT NULL,                          -- of the database in which it happened; another one has its own event
    kind         text        NOT NULL CHECK (kind IN ('merge', 'erase')),
    people       uuid[]      NOT NULL,                          -- whose links follow
    into_id      uuid        CHECK ((into_id IS NOT NULL) = (kind = 'merge')),
    actor        text        NOT NULL,
    state        text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done', 'failed')),
    reason       text,
    next_at      timestamptz NOT NULL DEFAULT now(),
    leased_until timestamptz NOT NULL DEFAULT '-infinity',      -- somebody works at it; whoever dies lets go by silence, or when he is back
    leased_by    text,                                          -- the replica
    created_at   timestamptz NOT NULL DEFAULT now(),
    ended_at     timestamptz
);
CREATE INDEX followings_due ON followings (project_id, next_at) WHERE state = 'open';
CREATE INDEX followings_order ON followings (project_id, order_id, epoch DESC);

-- A link column of one following. A table that refuses keeps no other: it is tried again by itself, and given up at last.
CREATE TABLE followed_columns (
    following   uuid        NOT NULL REFERENCES followings ON DELETE CASCADE,
    table_name  text        NOT NULL,
    column_name text        NOT NULL,
    link        text        NOT NULL CHECK (link IN ('contact', 'conversation', 'message')),
    state       text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done', 'failed')),
    rows        bigint      NOT NULL DEFAULT 0,                 -- changed or deleted; a crash may lose the count of one batch
    attempts    int         NOT NULL DEFAULT 0,
    reason      text,                                           -- of the last refusal, for people; may hold the project's own words
    next_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (following, table_name, column_name)
);
