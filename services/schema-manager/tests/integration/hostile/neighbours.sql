-- bot: privilege
SELECT * FROM pg_stat_activity

-- bot: privilege
SELECT * FROM pg_stat_get_activity(NULL)

-- bot: privilege
SELECT pg_stat_get_backend_activity(1)

-- bot: privilege
SELECT * FROM pg_locks

-- bot: privilege
SELECT * FROM pg_lock_status()

-- bot: privilege
SELECT * FROM pg_stat_database

-- bot: privilege
SELECT * FROM pg_prepared_xacts

-- bot: privilege
SELECT pg_database_size('{other}')

-- bot: privilege
SELECT pg_terminate_backend(1)

-- bot: privilege
SELECT pg_cancel_backend(pg_backend_pid())

-- bot: harmless
SELECT datname FROM pg_database

-- bot: privilege
SELECT pg_advisory_lock(42)

-- bot: privilege
SELECT pg_try_advisory_xact_lock(42)

-- bot: privilege
SELECT pg_advisory_lock_shared(1, 2)

-- bot: harmless
SELECT pg_advisory_unlock_all()

-- bot: privilege
SELECT pg_notify('x', 'y')

-- bot: harmless or limit
LISTEN x; NOTIFY x, 'y'

-- bot: limit
BEGIN; CREATE TABLE pt (a int); PREPARE TRANSACTION 'x'

-- editor: limit or reaper
DO $$ BEGIN FOR i IN 1..20000 LOOP EXECUTE format('NOTIFY x, %L', repeat('x', 7000) || i); END LOOP; END $$
