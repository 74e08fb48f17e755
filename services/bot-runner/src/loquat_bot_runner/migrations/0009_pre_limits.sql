-- What projects chose of their bots' limits; what they did not choose is as the installation's plan has it.
CREATE TABLE limits (
    project_id text        NOT NULL PRIMARY KEY,
    chosen     jsonb       NOT NULL DEFAULT '{}',
    updated_by text        NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
