-- A number that Meta keeps from sending (billing, policy, registration) rests as a whole: none of its messages is tried before.
ALTER TABLE numbers ADD COLUMN parked_until timestamptz;

-- Heads are looked for number by number, so that one with a long queue is not in front of the others.
CREATE INDEX sends_number_due ON sends (number_id, next_at, seq) WHERE state = 'queued';
CREATE INDEX sends_deadline ON sends (deadline) WHERE state = 'queued';

-- Meta's updates that name no person. The project is the one that had the number when it came; updates of an account as a whole have none.
CREATE TABLE account_updates (
    event_id    uuid        PRIMARY KEY,
    seq         bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    waba_id     text        NOT NULL,
    number_id   text,
    project_id  text,
    field       text        NOT NULL,
    raw         text        NOT NULL,
    received_at timestamptz NOT NULL
);
CREATE INDEX account_updates_project ON account_updates (project_id, seq) WHERE project_id IS NOT NULL;
CREATE INDEX account_updates_waba ON account_updates (waba_id, seq) WHERE number_id IS NULL;
CREATE INDEX account_updates_received ON account_updates (received_at);
CREATE INDEX unrouted_received ON unrouted (received_at);
