-- Contacts who were erased: a message to one that comes late is not sent and not kept. Ids only; as long as the project lives, for a dead letter may be
-- tried again any time.
CREATE TABLE erased_contacts (
    project_id text NOT NULL,
    contact_id uuid NOT NULL,
    PRIMARY KEY (project_id, contact_id)
);
-- Null: taken in by an older release.
ALTER TABLE sends ADD COLUMN contact_id uuid;
