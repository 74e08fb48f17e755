CREATE TABLE organizations (
    id         text        PRIMARY KEY,
    name       text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE users (
    id              uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
    organization_id text        NOT NULL REFERENCES organizations,
    email           text        NOT NULL UNIQUE,
    password_hash   text        NOT NULL,  -- argon2id
    role            text        NOT NULL CHECK (role IN ('owner', 'member')),
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX users_organization ON users (organization_id);

-- A key has 256 bits of its own, so a fast hash keeps it: nobody can guess one.
CREATE TABLE api_keys (
    id              uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
    organization_id text        NOT NULL REFERENCES organizations,
    user_id         uuid        REFERENCES users,
    name            text        NOT NULL,
    digest          bytea       NOT NULL UNIQUE,
    scopes          text[]      NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    revoked_at      timestamptz
);
CREATE INDEX api_keys_organization ON api_keys (organization_id);
CREATE INDEX api_keys_user ON api_keys (user_id);

-- Projects that were ordered: a caller sees its project from the first moment, before the provisioner has heard of it.
CREATE TABLE project_requests (
    project_id      text        PRIMARY KEY,
    organization_id text        NOT NULL REFERENCES organizations,
    name            text        NOT NULL,
    requested_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX project_requests_organization ON project_requests (organization_id);

CREATE TABLE audit_log (
    id              uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
    organization_id text        NOT NULL,
    actor           text        NOT NULL,
    action          text        NOT NULL,
    project_id      text,
    at              timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_log_organization ON audit_log (organization_id, id DESC);
