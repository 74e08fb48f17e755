CREATE TABLE bookings (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    contact_id uuid NOT NULL,
    day date NOT NULL,
    hour int NOT NULL,
    people int NOT NULL,
    booked_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (day, hour)
);

-- So the rows follow their contact when it is merged or erased.
COMMENT ON COLUMN bookings.contact_id IS 'loquat:link=contact';
CREATE INDEX ON bookings (contact_id);
