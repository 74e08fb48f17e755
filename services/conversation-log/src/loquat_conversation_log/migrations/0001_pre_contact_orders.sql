-- Orders to merge and to erase contacts: written when they are asked for, executed when their command comes. Ids only. What was erased is remembered
-- as long as the project lives: a database that comes back from a backup brings the person back, and `epoch` says that he has to be erased there, too.
CREATE TABLE contact_orders (
    id         uuid        NOT NULL PRIMARY KEY,
    project_id text        NOT NULL,
    kind       text        NOT NULL CHECK (kind IN ('merge', 'erase')),
    contact_id uuid        NOT NULL,
    into_id    uuid        CHECK ((into_id IS NOT NULL) = (kind = 'merge')),
    ordered_by text        NOT NULL,
    state      text        NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'refused')),
    reason     text,                                        -- why it is refused: a word of loquat.merge_contacts or loquat.erase_contact
    people     uuid[]      NOT NULL DEFAULT '{}',           -- erased: the contact, and those that had been merged into it
    epoch      bigint      CHECK (epoch IS NOT NULL OR state <> 'done'),
    ordered_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz
);
CREATE INDEX contact_orders_project ON contact_orders (project_id, ordered_at DESC);
CREATE INDEX contact_orders_erased ON contact_orders (project_id, epoch) WHERE kind = 'erase' AND state = 'done';
