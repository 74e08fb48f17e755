-- Immutable, content-addressed: the version is the sha-256 of the bundle.
CREATE TABLE versions (
    project_id text        NOT NULL,
    version    text        NOT NULL CHECK (length(version) = 64),
    files      jsonb       NOT NULL,
    author     text        NOT NULL,
    message    text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, version)
);

CREATE TABLE deployments (
    id          uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
    project_id  text        NOT NULL,
    version     text        NOT NULL,
    deployed_by text        NOT NULL,
    message     text        NOT NULL,
    deployed_at timestamptz NOT NULL DEFAULT now(),
    published   boolean     NOT NULL DEFAULT false,
    FOREIGN KEY (project_id, version) REFERENCES versions
);
CREATE INDEX deployments_project ON deployments (project_id, id DESC);
CREATE INDEX deployments_version ON deployments (project_id, version);
CREATE INDEX deployments_unpublished ON deployments (id) WHERE NOT published;

CREATE TABLE runs (
    id          uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
    project_id  text        NOT NULL,
    event_id    uuid        NOT NULL,
    version     text,
    attempt     int         NOT NULL,
    state       text,
    next_state  text,
    outcome     text        NOT NULL,
    replies     int         NOT NULL DEFAULT 0,
    duration_ms float       NOT NULL,
    error       text,
    trace       text,
    started_at  timestamptz NOT NULL
);
CREATE INDEX runs_project ON runs (project_id, id DESC);

CREATE TABLE logs (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id text        NOT NULL,
    event_id   uuid,
    level      text        NOT NULL,
    line       text        NOT NULL,
    at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX logs_project ON logs (project_id, id DESC);
