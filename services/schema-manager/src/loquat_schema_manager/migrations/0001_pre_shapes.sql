-- A template per cluster and version. The row is also the lock: who builds holds it.
CREATE TABLE templates (
    cluster   text        NOT NULL,
    version   int         NOT NULL,
    database  text,
    sealed_at timestamptz,
    PRIMARY KEY (cluster, version)
);

-- The schema of each project database, as far as we know. A row is also the lock of its database: who migrates holds it, and a process that
-- dies lets go of it. (Not in the project database: there a tenant could hold it.)
CREATE TABLE databases (
    cluster    text        NOT NULL,
    database   text        NOT NULL,
    project_id text        NOT NULL,
    version    int         NOT NULL DEFAULT 0,          -- 0: nobody has looked yet
    attempts   int         NOT NULL DEFAULT 0,          -- failed ones since the last success
    reason     text,                                    -- of the last failure, for people
    next_at    timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster, database)
);
CREATE INDEX databases_due ON databases (version, next_at);
CREATE INDEX databases_project ON databases (project_id);
