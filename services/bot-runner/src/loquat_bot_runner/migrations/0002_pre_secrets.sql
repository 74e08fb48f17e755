-- Secrets of bots, sealed: see loquat_common.crypto.
CREATE TABLE secrets (
    project_id text        NOT NULL,
    name       text        NOT NULL,
    sealed     bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, name)
);
