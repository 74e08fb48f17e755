-- Versions with what they began with and what they declare, deployments as a history of pointers, drafts, runs that can be asked about.

ALTER TABLE versions
    ADD COLUMN parent     text,                                -- no foreign key: a parent is history, whether it is kept or not
    ADD COLUMN saved_at   timestamptz NOT NULL DEFAULT now(),  -- of the last time: the same content may be saved again
    ADD COLUMN listed     boolean     NOT NULL DEFAULT true,   -- false: a draft's content that a test contact met, saved by nobody
    ADD COLUMN file_count int,
    ADD COLUMN bytes      int,
    ADD COLUMN declared   jsonb;                               -- {"states": [...], "needs": {table: [columns]}}; null: not loaded yet
CREATE INDEX versions_listed ON versions (project_id, created_at DESC, version DESC) WHERE listed;
CREATE INDEX versions_unlisted ON versions (saved_at) WHERE NOT listed;

-- A row is the whole pointer from then on, not a change of it: who reads one row knows what runs.
ALTER TABLE deployments
    ADD COLUMN kind    text   NOT NULL DEFAULT 'deploy' CHECK (kind IN ('deploy', 'canary', 'promote', 'stop', 'rollback', 'testers')),
    ADD COLUMN forced  text[] NOT NULL DEFAULT '{}',           -- codes of the objections that were overruled
    ADD COLUMN before  uuid,                                   -- the deployment to which a rollback from here leads
    ADD COLUMN canary  jsonb,
    ADD COLUMN testers jsonb  NOT NULL DEFAULT '{}';
UPDATE deployments AS d SET before = (
    SELECT e.id FROM deployments AS e
    WHERE e.project_id = d.project_id AND e.id < d.id AND e.version <> d.version ORDER BY e.id DESC LIMIT 1);

-- One draft a project, edited by many. `base`: the version it began with or was last saved as.
CREATE TABLE drafts (
    project_id text        NOT NULL PRIMARY KEY,
    base       text,
    begun_at   timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE draft_files (
    project_id text        NOT NULL REFERENCES drafts ON DELETE CASCADE,
    path       text        NOT NULL,
    content    text        NOT NULL,
    etag       text        NOT NULL,                           -- sha-256 of the content, in hex
    author     text        NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, path)
);

ALTER TABLE runs ADD COLUMN conversation_id uuid, ADD COLUMN queries int;
CREATE INDEX runs_conversation ON runs (project_id, conversation_id, id DESC);
CREATE INDEX runs_failed ON runs (project_id, id DESC) WHERE outcome <> 'handled';
CREATE INDEX runs_event ON runs (project_id, event_id);
CREATE INDEX logs_event ON logs (project_id, event_id, id) WHERE event_id IS NOT NULL;
