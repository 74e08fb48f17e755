CREATE TABLE numbers (
    phone_number_id      text        PRIMARY KEY,
    project_id           text        NOT NULL,
    waba_id              text        NOT NULL,
    display_phone_number text,
    token                bytea       NOT NULL,   -- sealed
    state                text        NOT NULL CHECK (state IN ('detaching', 'attaching', 'attached', 'needs_reconnect')),
    attach_at            timestamptz NOT NULL DEFAULT now(),  -- not before every gateway has forgotten the old route
    retired              boolean     NOT NULL DEFAULT true,   -- the tombstone of another project's route is on the bus
    published            boolean     NOT NULL DEFAULT false,  -- the state is on the bus
    attached_at          timestamptz
);
CREATE INDEX numbers_project ON numbers (project_id);
CREATE INDEX numbers_unpublished ON numbers (attach_at) WHERE NOT published;

CREATE TABLE sends (
    message_id  uuid        PRIMARY KEY,
    seq         bigint      GENERATED ALWAYS AS IDENTITY,
    project_id  text        NOT NULL,
    number_id   text        NOT NULL,
    recipient   text        NOT NULL,
    is_user_id  boolean     NOT NULL,
    message     jsonb       NOT NULL,
    state       text        NOT NULL CHECK (state IN ('queued', 'sending', 'accepted', 'failed', 'unknown', 'expired')),
    attempts    int         NOT NULL DEFAULT 0,
    next_at     timestamptz NOT NULL DEFAULT now(),
    deadline    timestamptz NOT NULL,
    lease_until timestamptz,
    wamid       text,
    queued_at   timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz
) WITH (fillfactor = 80);
CREATE INDEX sends_lane ON sends (number_id, recipient, seq) WHERE state IN ('queued', 'sending');
CREATE INDEX sends_due ON sends (next_at) WHERE state = 'queued';
CREATE INDEX sends_leased ON sends (lease_until) WHERE state = 'sending';
CREATE INDEX sends_project ON sends (project_id, seq);

-- Every attempt, committed before the socket is written to.
CREATE TABLE attempts (
    message_id  uuid        NOT NULL REFERENCES sends ON DELETE CASCADE,
    n           int         NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at    timestamptz,
    outcome     text,
    http_status int,
    code        int,
    title       text,
    details     text,
    fbtrace_id  text,
    PRIMARY KEY (message_id, n)
);

-- What is still to be published: written with the state it tells of.
CREATE TABLE outcomes (
    id         uuid        PRIMARY KEY,
    seq        bigint      GENERATED ALWAYS AS IDENTITY,
    project_id text        NOT NULL,
    body       jsonb       NOT NULL
);
CREATE INDEX outcomes_seq ON outcomes (seq);

-- Updates of numbers that nobody has attached.
CREATE TABLE unrouted (
    event_id    uuid        PRIMARY KEY,
    seq         bigint      GENERATED ALWAYS AS IDENTITY,
    number_id   text        NOT NULL,
    waba_id     text        NOT NULL,
    change      text        NOT NULL,
    received_at timestamptz NOT NULL
);
CREATE INDEX unrouted_number ON unrouted (number_id, seq);
