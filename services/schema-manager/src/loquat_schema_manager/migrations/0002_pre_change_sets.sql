-- Change sets of projects: who, when, what, how to undo it. The row is written before the change and says where to look whether it took effect:
-- `xid` is the project database's own number of the transaction, put here before its commit; that database remembers what became of it.
CREATE TABLE change_sets (
    id           uuid        NOT NULL PRIMARY KEY,
    project_id   text        NOT NULL,
    cluster      text        NOT NULL,
    database     text        NOT NULL,
    epoch        bigint      NOT NULL,
    state        text        NOT NULL DEFAULT 'applying' CHECK (state IN ('applying', 'applied', 'failed', 'unknown')),
    actor        text        NOT NULL,
    message      text,
    changes      jsonb       NOT NULL,
    xid          text        CHECK (xid IS NOT NULL OR state <> 'applied'),
    tables       text[]      NOT NULL DEFAULT '{}',
    statements   jsonb       NOT NULL DEFAULT '[]',
    reverse      jsonb,                                  -- steps; NULL: it cannot be undone, and `irreversible` says why
    irreversible text,
    reverts      uuid        REFERENCES change_sets,
    created_at   timestamptz NOT NULL DEFAULT now(),
    applied_at   timestamptz,
    announced_at timestamptz                             -- the outbox: SchemaChanged is durable on the bus
);
CREATE INDEX change_sets_project ON change_sets (project_id, created_at DESC, id DESC);
CREATE INDEX change_sets_open ON change_sets (created_at) WHERE state = 'applying';
CREATE INDEX change_sets_unsaid ON change_sets (applied_at) WHERE state = 'applied' AND announced_at IS NULL;
-- A set is undone once; one whose undoing is on its way is not undone a second time.
CREATE UNIQUE INDEX change_sets_reverts ON change_sets (reverts) WHERE state IN ('applying', 'applied');
CREATE INDEX change_sets_reverts_all ON change_sets (reverts) WHERE reverts IS NOT NULL;
