-- a program | 42501
COPY (SELECT 1) TO PROGRAM 'touch /tmp/evil'

-- a program as a source | 42501
CREATE TABLE out (a text); COPY out FROM PROGRAM 'cat /etc/passwd'

-- a file | 42501
COPY bookings TO '/tmp/evil'

-- a file as a source | 42501
CREATE TABLE keys (a text); COPY keys FROM '/etc/shadow'

-- a file by function | 42501
SELECT pg_read_binary_file('postgresql.conf')

-- a file by function, with all arguments | 42501
SELECT pg_read_file('pg_hba.conf', 0, 100, true)

-- a folder | 42501
SELECT * FROM pg_ls_dir('base')

-- the log | 42501
SELECT * FROM pg_ls_logdir()

-- the write-ahead log | 42501
SELECT * FROM pg_ls_waldir()

-- temporary files | 42501
SELECT * FROM pg_ls_tmpdir()

-- a file's data | 42501
SELECT * FROM pg_stat_file('PG_VERSION')

-- a large object | 42501
SELECT lo_creat(-1)

-- a large object by number | 42501
SELECT lo_create(4711)

-- a large object from a file | 42501
SELECT lo_import('/etc/passwd', 4711)

-- a large object written | 42501
SELECT lo_put(4711, 0, 'x')

-- a large object's rights | 42704
GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC

-- an extension that connects | 42501
CREATE EXTENSION dblink

-- an extension that connects, into a schema | 42501
CREATE EXTENSION IF NOT EXISTS postgres_fdw SCHEMA public CASCADE

-- an extension that is trusted elsewhere | 42501
CREATE EXTENSION hstore

-- an extension with a language | 42501 or 0A000 or 58P01
CREATE EXTENSION plpython3u

-- an extension taken away | 42501
DROP EXTENSION plpgsql CASCADE

-- an extension changed | 42501
ALTER EXTENSION plpgsql ADD TABLE bookings

-- a wrapper | 42501
CREATE FOREIGN DATA WRAPPER evil NO HANDLER

-- a server | 42501 or 42704
CREATE SERVER evil FOREIGN DATA WRAPPER dblink_fdw OPTIONS (host '127.0.0.1')

-- a mapping | 42704
CREATE USER MAPPING FOR CURRENT_USER SERVER evil

-- a language | 42501
CREATE TRUSTED LANGUAGE mine HANDLER plpgsql_call_handler

-- a function in C | 42501
CREATE FUNCTION evil() RETURNS int LANGUAGE c AS 'libc.so.6', 'system'

-- a function of the inner language | 42501
CREATE FUNCTION evil(text) RETURNS text LANGUAGE internal AS 'pg_read_file_all'

-- a library | 42501
LOAD '/tmp/evil.so'

-- a library that is there | 42501
LOAD 'plpgsql'

-- a tablespace | 42501 | console 42501 or 25001
CREATE TABLESPACE evil LOCATION '/tmp'

-- a database | 42501 | console 42501 or 25001
CREATE DATABASE evil

-- a neighbour's database copied | 42501 | console 42501 or 25001
CREATE DATABASE mine TEMPLATE {other} STRATEGY file_copy

-- a neighbour's database dropped | 42501 | console 42501 or 25001
DROP DATABASE {other} WITH (FORCE)

-- one's own database renamed | 42501 or 0A000 or 55006
ALTER DATABASE {me} RENAME TO mine

-- one's own database without limits | 42501
ALTER DATABASE {me} WITH ALLOW_CONNECTIONS true CONNECTION LIMIT -1 IS_TEMPLATE true

-- one's own database's owner | 42501
ALTER DATABASE {me} OWNER TO {owner}

-- the server's settings | 42501 or 0A000 | console 42501 or 0A000 or 25001
ALTER SYSTEM SET work_mem = '10GB'

-- the server's settings read again | 42501
SELECT pg_reload_conf()

-- the server's log rotated | 42501
SELECT pg_rotate_logfile()

-- the server's files with settings | 42501
SELECT * FROM pg_file_settings

-- who may log in from where | 42501
SELECT * FROM pg_hba_file_rules

-- how names are mapped | 42501
SELECT * FROM pg_ident_file_mappings

-- where the data lies | 42501
SELECT current_setting('data_directory')

-- where the settings lie | 42501
SHOW hba_file

-- how the server reaches its primary | 42501
SHOW primary_conninfo

-- no secret among the settings | harmless
DO $$ BEGIN IF EXISTS (SELECT FROM pg_settings WHERE name ~ '(conninfo|passphrase|_file$|_directory$|archive_command|restore_command|key_file)' AND setting ~ '[/=]' AND name NOT IN ('unix_socket_directories', 'log_directory')) THEN RAISE EXCEPTION 'a secret'; END IF; END $$

-- a publication of everything | 42501
CREATE PUBLICATION leak FOR ALL TABLES

-- a publication of a schema | 42501
CREATE PUBLICATION leak FOR TABLES IN SCHEMA public

-- a subscription | 42501
CREATE SUBSCRIPTION leak CONNECTION 'host=127.0.0.1 dbname={other}' PUBLICATION p WITH (connect = false, slot_name = NONE)

-- a physical slot that keeps all WAL | 42501
SELECT pg_create_physical_replication_slot('pin', true)

-- a logical slot | 42501
SELECT pg_create_logical_replication_slot('pin', 'pgoutput')

-- a slot copied | 42501 or 42704
SELECT pg_copy_physical_replication_slot('a', 'b')

-- slots | 42501
SELECT * FROM pg_replication_slots

-- slots synchronised | 42501 or 55000 or 0A000
SELECT pg_sync_replication_slots()

-- a message in the log of the cluster | 42501
SELECT pg_logical_emit_message(true, 'x', 'y')

-- an origin of replication | 42501
SELECT pg_replication_origin_create('mine')

-- a prepared transaction | 55000 | console 55000 or 25001
DO $$ BEGIN END $$; PREPARE TRANSACTION 'mine'

-- a prepared transaction of somebody's | 42501
SELECT * FROM pg_prepared_xacts

-- a snapshot that others may use | 42501
SELECT pg_export_snapshot()

-- a backup begun | 42501
SELECT pg_backup_start('mine')

-- a restore point | 42501
SELECT pg_create_restore_point('mine')

-- a switch of the log | 42501
SELECT pg_switch_wal()

-- a promotion | 42501
SELECT pg_promote()

-- a checkpoint | 42501
CHECKPOINT

-- memory of backends into the log | 42501
SELECT pg_log_backend_memory_contexts(pg_backend_pid())

-- memory of this backend | 42501
SELECT * FROM pg_backend_memory_contexts

-- shared memory | 42501
SELECT * FROM pg_shmem_allocations

-- counters of the cluster | 42501
SELECT pg_stat_reset_shared('bgwriter')

-- counters of this database | 42501
SELECT pg_stat_reset()

-- how objects are pinned | 42501
SELECT pg_stop_making_pinned_objects()

-- the next oid | 42501
SELECT pg_nextoid('pg_class'::regclass, 'oid', 'pg_class_oid_index'::regclass)

-- collations of the system | 42501
SELECT pg_import_system_collations('public'::regnamespace)

-- what only an upgrade may call | 55000 or 55P02 or XX000
SELECT binary_upgrade_set_next_pg_authid_oid(10)

-- system tables of Postgres written | 42501
UPDATE pg_catalog.pg_class SET relowner = (SELECT oid FROM pg_roles WHERE rolname = '{owner}') WHERE relname = 'messages'

-- system tables of Postgres dropped | 42501
DELETE FROM pg_catalog.pg_proc WHERE proname = 'record_inbound'

-- system tables of Postgres may be changed | 42501
SET allow_system_table_mods = on

-- system indexes passed over | 42501 or 55P02
SET ignore_system_indexes = on
