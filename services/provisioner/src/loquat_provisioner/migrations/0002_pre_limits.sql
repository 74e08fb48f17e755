-- What an owner chose; a project without a row has the defaults.
CREATE TABLE limits (
    project_id          text        PRIMARY KEY REFERENCES projects,
    size_bytes          bigint      NOT NULL,
    bot_connections     int         NOT NULL,
    editor_connections  int         NOT NULL,
    direct_connections  int         NOT NULL,
    statement_seconds   int         NOT NULL,
    transaction_seconds int         NOT NULL,
    applied             boolean     NOT NULL DEFAULT false,     -- on the tenant cluster, where they are enforced
    changed_at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX limits_to_apply ON limits (changed_at) WHERE NOT applied;
