-- Where bots may connect to: a project without a row is closed.
CREATE TABLE egress (
    project_id text        NOT NULL PRIMARY KEY,
    hosts      text[]      NOT NULL,
    updated_by text        NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Where they did, or wanted to: a row per host and outcome, not per connection.
CREATE TABLE destinations (
    project_id  text        NOT NULL,
    host        text        NOT NULL,
    port        int         NOT NULL,
    outcome     text        NOT NULL,
    connections bigint      NOT NULL,
    sent        bigint      NOT NULL,
    received    bigint      NOT NULL,
    first_at    timestamptz NOT NULL DEFAULT now(),
    last_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, host, port, outcome)
);
CREATE INDEX destinations_latest ON destinations (project_id, last_at DESC);
