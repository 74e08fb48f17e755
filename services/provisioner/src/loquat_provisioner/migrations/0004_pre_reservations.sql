-- At most one order for a backup, a restore or a clone of a project is given at a time: the row is there from before it is said until it is over.
CREATE TABLE reservations (
    project_id  text        PRIMARY KEY REFERENCES projects,
    order_id    uuid        NOT NULL,
    kind        text        NOT NULL CHECK (kind IN ('backup', 'restore', 'clone')),
    reserved_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX reservations_order ON reservations (order_id);
