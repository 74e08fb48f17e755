-- bot: privilege
COPY (SELECT 1) TO PROGRAM 'id'

-- bot: privilege
CREATE TABLE f (a text); COPY f FROM '/etc/passwd'

-- bot: privilege
SELECT pg_read_file('/etc/passwd')

-- bot: privilege
SELECT pg_ls_dir('.')

-- bot: privilege
SELECT pg_stat_file('PG_VERSION')

-- bot: privilege
SELECT lo_import('/etc/passwd')

-- bot: privilege
SELECT lo_create(0)

-- bot: privilege
SELECT lo_from_bytea(0, 'x')

-- bot: privilege
SELECT lo_export(1, '/tmp/x')

-- editor: privilege
CREATE EXTENSION dblink

-- editor: privilege
CREATE EXTENSION postgres_fdw

-- editor: privilege
CREATE EXTENSION file_fdw

-- editor: privilege
CREATE EXTENSION pg_trgm

-- editor: privilege
CREATE EXTENSION vector

-- editor: refused
CREATE EXTENSION adminpack

-- editor: refused
CREATE EXTENSION plpython3u

-- editor: privilege
CREATE LANGUAGE evil HANDLER plpgsql_call_handler

-- editor: privilege
CREATE FUNCTION evil() RETURNS int LANGUAGE c AS '/tmp/evil.so'

-- editor: privilege
CREATE FUNCTION evil(text) RETURNS text LANGUAGE internal AS 'pg_read_file'

-- editor: privilege
CREATE FOREIGN DATA WRAPPER evil

-- editor: refused
CREATE SERVER evil FOREIGN DATA WRAPPER postgres_fdw

-- editor: privilege
CREATE PUBLICATION evil FOR ALL TABLES

-- editor: privilege
CREATE SUBSCRIPTION evil CONNECTION 'host=127.0.0.1' PUBLICATION x WITH (connect = false)

-- editor: privilege
CREATE FUNCTION ev() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER evil ON ddl_command_start EXECUTE FUNCTION ev()

-- editor: privilege
CREATE TABLESPACE evil LOCATION '/tmp'

-- editor: privilege
CREATE DATABASE evil TEMPLATE {other}

-- editor: refused
ALTER SYSTEM SET log_statement = 'all'

-- bot: privilege
LOAD 'auto_explain'

-- bot: privilege
SET session_replication_role = replica

-- bot: privilege
SET temp_file_limit = -1

-- bot: privilege
SET max_stack_depth = '100MB'

-- bot: privilege
CHECKPOINT

-- bot: privilege
SELECT pg_reload_conf()

-- bot: privilege
SELECT pg_switch_wal()

-- bot: privilege
SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000))

-- bot: privilege
SELECT pg_create_logical_replication_slot('x', 'test_decoding')
