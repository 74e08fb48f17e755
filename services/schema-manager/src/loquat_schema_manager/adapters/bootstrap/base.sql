-- What PUBLIC may not call or see in a project database, by a superuser: inside loquat_base once, and again in every database that stands when this
-- file changes (adapters/upgrades.py). Rights on pg_catalog are per database. So every statement may be repeated, names are looked up in pg_catalog
-- alone, and nothing of a tenant's is evaluated. Whoever changes this file or cluster.sql raises BOOTSTRAP in loquat_common.bootstrap.

-- pg_database_owner (the provisioner) owns public by default; the system owner shall.
ALTER SCHEMA public OWNER TO loquat_system;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA IF NOT EXISTS loquat AUTHORIZATION loquat_system;
CREATE SCHEMA IF NOT EXISTS extensions AUTHORIZATION loquat_system;

-- Functions. pg_advisory_unlock_all stays: asyncpg and other pools call it when a connection is given back.
DO $$
DECLARE f regprocedure;
BEGIN
  FOR f IN
    SELECT oid FROM pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace AND proname <> 'pg_advisory_unlock_all' AND (
         proname ~ '^pg_(try_)?advisory'                                  -- the lock table is shared by all projects
      OR proname ~ '^(lo_|lowrite$|loread$)'                              -- large objects have no schema and no quota of their own
      OR proname = 'pg_notify'                                            -- NOTIFY the command cannot be revoked, see cluster.conf
      OR proname ~ '^pg_stat_get_(activity|backend|progress|db_|wal|replication|slru|subscription|io|bgwriter|checkpointer|archiver|buf_alloc|recovery)'
      OR proname ~ '^pg_(control_|current_wal_|last_wal_|last_committed_xact|xact_commit_timestamp|available_wal_|wal_summary_)'  -- how busy others are
      OR proname IN ('pg_lock_status', 'pg_blocking_pids', 'pg_safe_snapshot_blocking_pids', 'pg_isolation_test_session_is_blocked',
                     'pg_prepared_xact', 'pg_get_replication_slots', 'pg_show_replication_origin_status', 'pg_stat_get_wal_senders',
                     'pg_stat_get_wal_receiver', 'pg_tablespace_databases', 'pg_tablespace_size', 'pg_database_size',
                     'pg_stat_clear_snapshot', 'pg_export_snapshot', 'pg_logical_emit_message', 'pg_create_logical_replication_slot',
                     'pg_create_physical_replication_slot', 'pg_drop_replication_slot', 'pg_replication_slot_advance',
                     'pg_get_shmem_allocations', 'pg_get_aios', 'pg_notification_queue_usage', 'pg_listening_channels',
                     'pg_conf_load_time', 'pg_postmaster_start_time', 'inet_server_addr', 'inet_client_addr', 'pg_cancel_backend',
                     'pg_terminate_backend', 'pg_current_logfile', 'pg_hba_file_rules'))
      AND prokind IN ('f', 'p')
  LOOP EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f); END LOOP;
  FOR f IN SELECT oid FROM pg_proc WHERE proname IN ('pg_terminate_backend', 'pg_cancel_backend', 'pg_blocking_pids')
      AND pronamespace = 'pg_catalog'::regnamespace
  LOOP EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO loquat_service', f); END LOOP;
  FOR f IN SELECT oid FROM pg_proc WHERE proname = 'pg_advisory_xact_lock' AND pronamespace = 'pg_catalog'::regnamespace
  LOOP EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO loquat_system', f); END LOOP;
END $$;

-- Views: activity, locks, statistics of other databases.
DO $$
DECLARE v regclass;
BEGIN
  FOR v IN
    SELECT oid FROM pg_class
    WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'v' AND (
         relname ~ '^pg_stat_(activity|database|replication|wal|slru|ssl|gssapi|progress|bgwriter|checkpointer|archiver|io|subscription|recovery)'
      OR relname IN ('pg_locks', 'pg_prepared_xacts', 'pg_replication_slots', 'pg_shmem_allocations', 'pg_shmem_allocations_numa', 'pg_aios',
                     'pg_file_settings', 'pg_hba_file_rules', 'pg_replication_origin_status', 'pg_user_mappings'))
  LOOP EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', v); END LOOP;
END $$;
GRANT SELECT ON pg_catalog.pg_stat_activity, pg_catalog.pg_locks TO loquat_service;
DO $$
DECLARE f regprocedure;
BEGIN
  FOR f IN SELECT oid FROM pg_proc WHERE proname IN ('pg_stat_get_activity', 'pg_lock_status') AND pronamespace = 'pg_catalog'::regnamespace LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO loquat_service', f); END LOOP;
END $$;
REVOKE ALL ON pg_catalog.pg_db_role_setting FROM PUBLIC;
GRANT SELECT ON pg_catalog.pg_db_role_setting TO loquat_dump;      -- pg_dump's custom format asks for the database's own settings
REVOKE ALL ON pg_catalog.pg_shdepend FROM PUBLIC;           -- how many objects every other project has
-- pg_roles and pg_largeobject_metadata stay readable: pg_dump as a tenant (export) reads them. Role names are random.

-- A limit on waiting for locks that a tenant cannot set aside. CREATE RULE, CREATE TRIGGER, REFERENCES and ATTACH PARTITION wait for a strong lock on
-- whatever table they name, also the system's and the cluster's own (pg_database, pg_authid), and are asked for the right to it afterwards; all who
-- come later wait behind them. Two sessions of one tenant kept everybody out of the cluster so, for as long as they liked. lock_timeout is the
-- tenant's to set; between this trigger and its command no statement of the tenant's can come. One second, to the end of the transaction; less
-- while another tenant's session holds what such a wait would be for: 250 ms for a table of the system's (commit_run waits 500 ms), 50 ms for what
-- the cluster shares (a login takes four such locks). Functions instead of views, so that it holds nothing shared itself.
CREATE SCHEMA IF NOT EXISTS loquat_walls;                   -- the superuser's: whoever could change the trigger would become superuser
CREATE OR REPLACE FUNCTION loquat_walls.limit_lock_wait() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  tenant constant text := '^p_[0-9a-f]{12}_';
  longest int;                                              -- milliseconds
BEGIN
  IF session_user !~ tenant THEN RETURN; END IF;
  SELECT coalesce(min(CASE l.database WHEN 0 THEN 50 ELSE 250 END), 1000) INTO longest
  FROM pg_lock_status() AS l CROSS JOIN LATERAL pg_stat_get_activity(l.pid) AS a LEFT JOIN pg_class AS c ON c.oid = l.relation
  WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_backend_pid() AND pg_get_userbyid(a.usesysid) ~ tenant
    AND (l.database = 0 OR c.relowner = 'loquat_system'::regrole AND l.database = (SELECT b.datid FROM pg_stat_get_activity(pg_backend_pid()) AS b));
  IF current_setting('lock_timeout')::interval NOT BETWEEN interval '1 ms' AND longest * interval '1 ms' THEN
    PERFORM set_config('lock_timeout', longest::text, true);
  END IF;
END $$;
ALTER FUNCTION loquat_walls.limit_lock_wait OWNER TO CURRENT_USER;        -- who made it may be no superuser any more
REVOKE ALL ON FUNCTION loquat_walls.limit_lock_wait FROM PUBLIC;
DROP EVENT TRIGGER IF EXISTS limit_lock_wait;
CREATE EVENT TRIGGER limit_lock_wait ON ddl_command_start EXECUTE FUNCTION loquat_walls.limit_lock_wait();
