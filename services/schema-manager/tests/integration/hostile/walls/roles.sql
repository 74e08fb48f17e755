-- to be the system | 42501
SET ROLE loquat_system

-- to be the system, in a function | 42501
DO $$ BEGIN EXECUTE 'RESET ROLE'; EXECUTE 'SET ROLE loquat_system'; END $$

-- to be the system, by a function's setting | 42501
CREATE FUNCTION climb() RETURNS void LANGUAGE sql SET role = 'loquat_system' AS ''; SELECT climb()

-- to be the system, by set_config | 42501
SELECT set_config('role', 'loquat_system', false)

-- to be a service | 42501
SET SESSION AUTHORIZATION loquat_bot_runner

-- to be a service, by set_config | 42501
SELECT set_config('session_authorization', 'loquat_provisioner', true)

-- to be the neighbour | 42501
RESET ROLE; SET ROLE {other}_owner

-- to be another login of one's own project | 42501
SET ROLE NONE; SET ROLE {me}_direct; SET ROLE NONE; SET ROLE {me}_editor; SET ROLE NONE; SET ROLE {me}_bot

-- a member of the system | 42501
GRANT loquat_system TO {owner}

-- a member of what reads all | 42501
GRANT pg_read_all_data TO {owner}

-- a member of what runs programs | 42501
GRANT pg_execute_server_program TO CURRENT_USER

-- a member of what ends sessions | 42501
SET ROLE NONE; GRANT pg_signal_backend TO {login}

-- one's owner for a neighbour | 42501
GRANT {owner} TO {other}_owner WITH SET TRUE

-- an option of one's own membership | 42501
SET ROLE NONE; GRANT {owner} TO {login} WITH INHERIT TRUE, ADMIN TRUE

-- a role | 42501
CREATE ROLE mine LOGIN

-- a superuser | 42501
ALTER ROLE CURRENT_USER SUPERUSER

-- replication | 42501
SET ROLE NONE; ALTER ROLE {login} REPLICATION

-- no row security | 42501
SET ROLE NONE; ALTER ROLE {login} BYPASSRLS

-- databases | 42501
SET ROLE NONE; ALTER ROLE {login} CREATEDB CREATEROLE

-- more connections | 42501
SET ROLE NONE; ALTER ROLE {login} CONNECTION LIMIT 1000

-- a password for the owner role, which nobody logs in as | 42501
ALTER ROLE {owner} LOGIN PASSWORD 'x'

-- a password for a neighbour | 42501
SET ROLE NONE; ALTER ROLE {other}_bot PASSWORD 'x'

-- a setting for a neighbour | 42501
SET ROLE NONE; ALTER ROLE {other}_bot SET statement_timeout = 1

-- a setting for everybody | 42501
ALTER ROLE ALL SET statement_timeout = 1

-- a setting that loads a library at the next login | 42501
SET ROLE NONE; ALTER ROLE {login} SET session_preload_libraries = 'auto_explain'

-- a setting that keeps oneself out at the next login: the reaper puts it back | harmless
SET ROLE NONE; ALTER ROLE {login} SET local_preload_libraries = '/tmp/evil'

-- a setting of one's own that a service would read | 42501
SET ROLE NONE; ALTER ROLE {login} SET loquat.mine = 'x'

-- a role dropped | 42501
DROP ROLE {other}_bot

-- a role renamed | 42501
ALTER ROLE {other}_owner RENAME TO gone

-- passwords | 42501
SELECT rolname, rolpassword FROM pg_catalog.pg_authid

-- passwords by another view | 42501
SELECT usename, passwd FROM pg_catalog.pg_shadow

-- no password in what may be read | harmless
DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolpassword <> '********') OR EXISTS (SELECT FROM pg_user WHERE passwd <> '********') THEN RAISE EXCEPTION 'a password'; END IF; END $$

-- default privileges of the system | 42501
ALTER DEFAULT PRIVILEGES FOR ROLE loquat_system REVOKE EXECUTE ON FUNCTIONS FROM loquat_bot_runner

-- default privileges in a schema of the platform: for what one makes there oneself, which is nothing | harmless
ALTER DEFAULT PRIVILEGES IN SCHEMA loquat GRANT SELECT ON TABLES TO PUBLIC

-- rights on a system table given away: a warning, nothing given | harmless or XX000
GRANT SELECT ON public.contacts TO {other}_owner

-- rights on a system table given to all: a warning, nothing given | harmless or XX000
GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC

-- rights of a service taken away: a warning, nothing taken | harmless or XX000
REVOKE ALL ON public.messages FROM loquat_conversation_log CASCADE

-- rights of a service on a platform function | 42501
REVOKE EXECUTE ON FUNCTION loquat.record_inbound FROM loquat_conversation_log

-- rights on the schema of the platform | harmless or XX000
GRANT USAGE ON SCHEMA loquat TO PUBLIC

-- rights on the database | 42501
GRANT CONNECT, TEMPORARY ON DATABASE {me} TO PUBLIC

-- rights on another database | 42501
GRANT CONNECT ON DATABASE {other} TO CURRENT_USER

-- rights on the empty template, whose row everybody could rewrite once | 42501
GRANT CONNECT ON DATABASE template0 TO CURRENT_USER

-- rights on a parameter | 42501
GRANT SET ON PARAMETER log_statement TO CURRENT_USER

-- rights on a language | 42809
GRANT USAGE ON LANGUAGE c TO CURRENT_USER

-- rights on a tablespace | 42501
GRANT CREATE ON TABLESPACE pg_default TO CURRENT_USER

-- objects of one's own given to the system | 42501
CREATE TABLE gift (a int); ALTER TABLE gift OWNER TO loquat_system

-- objects of one's own given to a login that inherits nothing | 42501
CREATE FUNCTION gift() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1; ALTER FUNCTION gift() OWNER TO loquat_bot_runner

-- all of the neighbour's | 42501
DROP OWNED BY {other}_owner
