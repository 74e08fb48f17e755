-- Points that the platform kept: sealed copies beside the project databases.
CREATE TABLE backups (
    backup_id  uuid        PRIMARY KEY,
    project_id text        NOT NULL REFERENCES projects,
    database   text        NOT NULL UNIQUE,
    state      text        NOT NULL DEFAULT 'taking' CHECK (state IN ('taking', 'kept', 'failed', 'dropped')),
    clone_id   text,                                    -- the project that is made of it; then it is no backup of the owner's and goes
    note       text,
    epoch      bigint      NOT NULL,
    size_bytes bigint,
    reason     text,
    ordered_by text        NOT NULL,
    ordered_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz
);
CREATE INDEX backups_project ON backups (project_id, ordered_at DESC);

-- Orders to go back to one. `epoch` is the one that begins then: chosen before any effect.
CREATE TABLE restores (
    restore_id uuid        PRIMARY KEY,
    project_id text        NOT NULL REFERENCES projects,
    backup_id  uuid        NOT NULL REFERENCES backups,
    epoch      bigint      NOT NULL,
    state      text        NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'failed')),
    reason     text,
    ordered_by text        NOT NULL,
    ordered_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz
);
CREATE INDEX restores_project ON restores (project_id, ordered_at DESC);
CREATE INDEX restores_backup ON restores (backup_id);

-- The copy that a project begins as, in place of the template; and whose it was.
ALTER TABLE projects ADD COLUMN origin text, ADD COLUMN former text;
