-- no limit on a statement: the reaper's | 57P01
SET statement_timeout = 0; SET transaction_timeout = 0; SELECT pg_sleep(1000)

-- no limit on a transaction: the reaper's | 57P01
SET transaction_timeout = 0; SET statement_timeout = 0; DO $$ BEGIN LOOP PERFORM pg_sleep(0.1); END LOOP; END $$

-- no limit on a lock: the event trigger's | harmless
SET lock_timeout = 0; CREATE TABLE bounded (a int); DO $$ BEGIN IF current_setting('lock_timeout') NOT IN ('1s', '250ms', '50ms') THEN RAISE EXCEPTION 'not bounded'; END IF; END $$; DROP TABLE bounded

-- no limit on a lock, by way of a function | harmless
CREATE FUNCTION wait() RETURNS text LANGUAGE plpgsql SET lock_timeout = 0 AS $$ BEGIN CREATE TABLE bounded (a int); RETURN current_setting('lock_timeout'); END $$; DO $$ BEGIN IF wait() NOT IN ('1s', '250ms', '50ms') THEN RAISE EXCEPTION 'not bounded'; END IF; END $$; DROP TABLE bounded; DROP FUNCTION wait

-- no limit on temporary files | 42501
SET temp_file_limit = -1

-- temporary files to their limit | 53400 or 53100 or 57014 or 57P01
SET work_mem = '64kB'; SELECT count(*) FROM (SELECT repeat(md5(g::text), 40) AS t FROM generate_series(1, 3000000) AS g ORDER BY 1 OFFSET 1) AS s

-- a cursor that outlives its transaction | 53400 or 53100 or 57014 or 57P01 or 25P01
SET statement_timeout = 0; DO $$ BEGIN END $$; DECLARE c CURSOR WITH HOLD FOR SELECT repeat(md5(g::text), 40) FROM generate_series(1, 3000000) AS g

-- triggers passed over | 42501
SET session_replication_role = replica

-- a stack | 42501
SET max_stack_depth = '7MB'

-- a stack used up | 54001 or 57014 or 57P01
CREATE FUNCTION deep(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN deep($1 + 1); END'; SELECT deep(1)

-- the log's words | 42501
SET log_min_messages = debug5

-- the log's statements | 42501
SET log_statement = 'all'

-- the log's parameters | 42501
SET log_parameter_max_length = -1

-- activity not seen | 42501
SET track_activities = off

-- the durable made undurable | 55P02
SET fsync = off

-- damaged pages passed over | 42501
SET zero_damaged_pages = on

-- libraries from elsewhere | 42501
SET dynamic_library_path = '/tmp'

-- libraries at the start: they were loaded at the start | harmless
SET local_preload_libraries = 'evil'

-- extensions from elsewhere | 42501
SET extension_control_path = '/tmp'

-- shared memory | 55P02
SET max_locks_per_transaction = 1

-- priority of parallel work: the server has few workers | harmless
SET max_parallel_workers_per_gather = 1024; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SELECT count(*) FROM pg_class AS a, pg_class AS b

-- serializable, whose locks are shared | harmless
SET default_transaction_isolation = serializable; SELECT count(*) FROM pg_class

-- a comment instead of a limit | harmless
SET application_name = 'loquat_schema_manager'; SELECT 1

-- the event trigger's own setting | 42501
SET ROLE NONE; SET event_triggers = off
