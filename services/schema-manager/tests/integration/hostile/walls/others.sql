-- what others run | 42501
SELECT query FROM pg_stat_activity

-- what others run, by function | 42501
SELECT * FROM pg_stat_get_activity(NULL)

-- what a backend runs | 42501
SELECT pg_stat_get_backend_activity(n) FROM pg_stat_get_backend_idset() AS n

-- where others come from | 42501
SELECT * FROM pg_stat_ssl

-- whom others wait for | 42501
SELECT pg_blocking_pids(pg_backend_pid())

-- which locks others have | 42501
SELECT * FROM pg_locks

-- how much others do | 42501
SELECT * FROM pg_stat_database

-- how much others do, by function | 42501
SELECT pg_stat_get_db_xact_commit(oid) FROM pg_database

-- how much others write | 42501
SELECT * FROM pg_stat_wal

-- how much others write, by the place in the log | 42501
SELECT pg_current_wal_lsn()

-- how much others write, by the place where it is inserted | 42501
SELECT pg_current_wal_insert_lsn()

-- how much others write, by the control file | 42501
SELECT * FROM pg_control_checkpoint()

-- how much others read | 42501
SELECT * FROM pg_stat_io

-- how many buffers others take | 42501
SELECT pg_stat_get_buf_alloc()

-- how many tables others have | 42501
SELECT dbid, count(*) FROM pg_catalog.pg_shdepend GROUP BY dbid

-- how large others are | 42501
SELECT pg_database_size(oid) FROM pg_database

-- how large the place of all is | 42501
SELECT pg_tablespace_size('pg_default')

-- which databases lie there | 42501
SELECT pg_tablespace_databases(1663)

-- how others set their logins | 42501
SELECT * FROM pg_catalog.pg_db_role_setting

-- which channels others listen to | 42501
SELECT pg_listening_channels()

-- how full the queue is | 42501
SELECT pg_notification_queue_usage()

-- when the last of all committed | 42501
SELECT * FROM pg_last_committed_xact()

-- the view of the platform's operations | 42P01 or 3F000 or 42501
SELECT * FROM loquat_operations.tenant_passwords

-- the neighbour's table by a qualified name | 0A000
SELECT * FROM {other}.public.messages

-- a session of somebody's ended | 42501
SELECT pg_terminate_backend(pid) FROM generate_series(1, 40000) AS pid

-- a session of somebody's cancelled | 42501
SELECT pg_cancel_backend(1)

-- an advisory lock | 42501
SELECT pg_advisory_lock(0)

-- an advisory lock for a transaction | 42501
SELECT pg_advisory_xact_lock(1, 2)

-- an advisory lock, if it is free | 42501
SELECT pg_try_advisory_lock(0)

-- an advisory lock, shared, if it is free | 42501
SELECT pg_try_advisory_xact_lock_shared(0)

-- an advisory lock let go of: harmless, pools call it | harmless
SELECT pg_advisory_unlock_all()

-- a notification by function | 42501
SELECT pg_notify('loquat', 'forged')

-- a notification: it reaches nobody else's database, and a full queue fails it alone | harmless or 54000
NOTIFY loquat, 'forged'

-- a channel listened to | harmless
LISTEN loquat; UNLISTEN *

-- a flood of notifications | 54000 or 57014 or 57P01
DO $$ BEGIN FOR i IN 1..20000 LOOP EXECUTE format('NOTIFY x, %L', repeat('x', 7000) || i); END LOOP; END $$

-- a neighbour's role in one's grants | harmless
CREATE TABLE given (a int); GRANT SELECT ON given TO {other}_owner; DROP TABLE given

-- a neighbour's role in one's policies | harmless
CREATE TABLE given (a int); ALTER TABLE given ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON given TO {other}_bot USING (true); DROP TABLE given
