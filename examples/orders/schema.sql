CREATE TABLE orders (
    number int PRIMARY KEY,
    contact_id uuid NOT NULL,
    item text NOT NULL,
    status text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'sent', 'delivered')),
    due_on date NOT NULL,
    told_late boolean NOT NULL DEFAULT false
);

-- So the rows follow their contact when it is merged or erased.
COMMENT ON COLUMN orders.contact_id IS 'loquat:link=contact';
CREATE INDEX ON orders (contact_id);
