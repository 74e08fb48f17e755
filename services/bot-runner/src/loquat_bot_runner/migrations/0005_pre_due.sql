-- When timers and schedules of all projects are due, so that nobody asks thousands of databases. What is to be done then stands in the project's own.
CREATE TABLE due (
    project_id text        NOT NULL,
    id         uuid        NOT NULL,                           -- the timer's or the automation's
    kind       text        NOT NULL CHECK (kind IN ('timer', 'schedule')),
    version    bigint      NOT NULL DEFAULT 0,                 -- of a timer: what is later replaces what is earlier
    event_id   uuid,                                           -- of a timer
    epoch      bigint      NOT NULL,                           -- of the project's database
    due_at     timestamptz NOT NULL,
    look_at    timestamptz NOT NULL,                           -- due_at, or later: the project was not ready
    lane       text        NOT NULL,
    body       jsonb       NOT NULL,
    PRIMARY KEY (project_id, id)
) WITH (fillfactor = 80);
CREATE INDEX due_look ON due (look_at) INCLUDE (project_id);
CREATE INDEX due_project ON due (project_id, look_at);

-- Whether the project's schedules are what this deployment's version declares.
ALTER TABLE deployments ADD COLUMN scheduled boolean NOT NULL DEFAULT true;
ALTER TABLE deployments ALTER COLUMN scheduled SET DEFAULT false;
CREATE INDEX deployments_unscheduled ON deployments (project_id) WHERE NOT scheduled;
