-- Once per tenant cluster, by a superuser, in database `postgres`; every statement may be repeated. At run time no service is superuser.

-- Roles. loquat_system owns every system object and cannot log in: definer functions run as it.
DO $$
DECLARE r text;
BEGIN
  FOREACH r IN ARRAY ARRAY['loquat_system', 'loquat_service', 'loquat_dump'] LOOP
    IF to_regrole(r) IS NULL THEN EXECUTE format('CREATE ROLE %I NOLOGIN', r); END IF;
  END LOOP;
  FOREACH r IN ARRAY ARRAY['loquat_provisioner', 'loquat_schema_manager', 'loquat_conversation_log', 'loquat_bot_runner'] LOOP
    IF to_regrole(r) IS NULL THEN EXECUTE format('CREATE ROLE %I LOGIN', r); END IF;
    EXECUTE format('GRANT loquat_service TO %I', r);
    -- Without this a service resolves names in "$user", public: a tenant's public.now(varchar) would be found.
    EXECUTE format('ALTER ROLE %I SET search_path = pg_catalog, pg_temp', r);
  END LOOP;
END $$;
ALTER ROLE loquat_provisioner CREATEDB CREATEROLE;
ALTER ROLE loquat_schema_manager CREATEDB;
GRANT pg_use_reserved_connections TO loquat_service;
-- What pg_dump reads besides a project's own: given to the one-time login of a dump, never to a tenant's. See base.sql.
GRANT loquat_dump TO loquat_provisioner WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
GRANT loquat_system TO loquat_schema_manager WITH INHERIT FALSE, SET TRUE;      -- migrations: SET ROLE loquat_system
GRANT pg_signal_backend, pg_read_all_stats TO loquat_provisioner;                -- the reaper
GRANT pg_signal_backend, pg_read_all_stats TO loquat_schema_manager;             -- a tenant's idle lock is ended, not waited for
ALTER ROLE loquat_conversation_log SET statement_timeout = '10s';                -- tighter than a tenant's
ALTER ROLE loquat_bot_runner SET statement_timeout = '10s';

-- The databases that every cluster has.
REVOKE ALL ON DATABASE postgres, template0, template1 FROM PUBLIC;   -- who has any right to a database may rewrite its row by a GRANT in vain
GRANT CONNECT ON DATABASE postgres TO loquat_service;
REVOKE ALL ON SCHEMA public FROM PUBLIC;

-- A role can always change its own password, and only a superuser reads pg_authid. The reaper compares digests.
CREATE SCHEMA IF NOT EXISTS loquat_operations;
CREATE OR REPLACE VIEW loquat_operations.tenant_passwords AS
SELECT rolname, pg_catalog.sha256(pg_catalog.convert_to(rolpassword, 'UTF8')) AS digest, rolcanlogin, rolconnlimit, rolvaliduntil
FROM pg_catalog.pg_authid WHERE rolname ~ '^p_[0-9a-f]{12}_(bot|editor|direct)$';
GRANT USAGE ON SCHEMA loquat_operations TO loquat_provisioner;
GRANT SELECT ON loquat_operations.tenant_passwords TO loquat_provisioner;

-- What the provisioner wants tenants' logins to be: what the reaper puts back. Verifiers, no passwords.
CREATE TABLE IF NOT EXISTS loquat_operations.logins (
    rolname name PRIMARY KEY, database name NOT NULL, verifier text NOT NULL, connection_limit int NOT NULL, settings text[] NOT NULL);
CREATE TABLE IF NOT EXISTS loquat_operations.projects (database name PRIMARY KEY, size_limit bigint NOT NULL, closed_for_size boolean NOT NULL DEFAULT false);
-- A closed login is NOLOGIN; the owner's own is, until it is asked for. One that is older than this rule was never shown to anybody.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'loquat_operations.logins'::regclass AND attname = 'closed') THEN
    ALTER TABLE loquat_operations.logins ADD COLUMN closed boolean NOT NULL DEFAULT false, ADD COLUMN opened_at timestamptz;
    UPDATE loquat_operations.logins SET closed = true WHERE rolname ~ '_direct$';
  END IF;
END $$;
-- Ages of this project's own; null: the reaper's.
ALTER TABLE loquat_operations.projects ADD COLUMN IF NOT EXISTS statement_age interval, ADD COLUMN IF NOT EXISTS transaction_age interval;
GRANT SELECT, INSERT, UPDATE, DELETE ON loquat_operations.logins, loquat_operations.projects TO loquat_provisioner;
-- Databases that a superuser opened, or barred, to bring them forward: see adapters/upgrades.py.
CREATE TABLE IF NOT EXISTS loquat_operations.opened (database name PRIMARY KEY, connection_limit int NOT NULL, opened_by xid NOT NULL);
