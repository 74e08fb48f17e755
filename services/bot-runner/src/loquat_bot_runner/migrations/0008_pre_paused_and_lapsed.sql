-- Pausing a bot is a step of its pointer, like others.
ALTER TABLE deployments
    ADD COLUMN paused boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT deployments_kind_check,
    ADD CONSTRAINT deployments_kind_check CHECK (kind IN ('deploy', 'canary', 'promote', 'stop', 'rollback', 'testers', 'pause', 'resume')) NOT VALID;

-- When people's holds of conversations end by themselves, so that it is told. Whether one does stands in the project's own database.
CREATE TABLE lapses (
    project_id      text        NOT NULL,
    conversation_id uuid        NOT NULL,
    epoch           bigint      NOT NULL,                      -- of the project's database
    held_until      timestamptz NOT NULL,
    look_at         timestamptz NOT NULL,                      -- held_until, or later: somebody is at it, or the project was not ready
    lane            text        NOT NULL,
    PRIMARY KEY (project_id, conversation_id)
);
CREATE INDEX lapses_look ON lapses (look_at);
