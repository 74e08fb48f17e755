-- Throw-away copies of project databases, in which bots are tried out. A row is there from before its copy is made until all of it is gone; no project
-- stands behind it, so no list, limit or listener of projects knows of it.
CREATE TABLE previews (
    preview_id uuid        PRIMARY KEY,
    project_id text        NOT NULL REFERENCES projects,
    cluster    text        NOT NULL,
    database   text        NOT NULL UNIQUE,
    epoch      bigint      NOT NULL,
    sealed     bytea       NOT NULL,                    -- the password of its bot's login
    state      text        NOT NULL DEFAULT 'making' CHECK (state IN ('making', 'ready', 'going')),
    made_at    timestamptz NOT NULL DEFAULT now(),
    used_at    timestamptz NOT NULL DEFAULT now()       -- of one that goes: when it was last tried to drop it
);
CREATE UNIQUE INDEX previews_one_of_a_project ON previews (project_id) WHERE state <> 'going';
CREATE INDEX previews_project ON previews (project_id);
