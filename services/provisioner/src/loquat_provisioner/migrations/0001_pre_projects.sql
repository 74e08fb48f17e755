CREATE TABLE projects (
    project_id      text        PRIMARY KEY,
    organization_id text        NOT NULL,
    name            text        NOT NULL,
    state           text        NOT NULL CHECK (state IN ('creating', 'ready', 'failed', 'deleting', 'deleted')),
    cluster         text,
    database        text        UNIQUE,
    epoch           bigint      NOT NULL DEFAULT 1,
    reason          text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    ready_at        timestamptz,
    delete_at       timestamptz
);
CREATE INDEX projects_organization ON projects (organization_id, created_at);

CREATE TABLE steps (
    project_id text        NOT NULL REFERENCES projects,
    name       text        NOT NULL,
    position   int         NOT NULL,
    status     text        NOT NULL CHECK (status IN ('running', 'done', 'failed')),
    attempts   int         NOT NULL DEFAULT 1,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz,
    reason     text,
    PRIMARY KEY (project_id, name)
);

-- Passwords of a project's logins, sealed. Made before any effect, so that a repeated step finds the same ones.
CREATE TABLE credentials (
    project_id text  NOT NULL REFERENCES projects,
    login      text  NOT NULL CHECK (login IN ('bot', 'editor', 'direct')),
    sealed     bytea NOT NULL,
    PRIMARY KEY (project_id, login)
);
