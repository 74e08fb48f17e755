-- bot: function
SET search_path = public; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET row_security = off; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET check_function_bodies = off; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET standard_conforming_strings = off; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET transform_null_equals = on; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET array_nulls = off; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET DateStyle = 'German'; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET IntervalStyle = 'sql_standard'; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET TimeZone = 'Pacific/Kiritimati'; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET bytea_output = 'escape'; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET extra_float_digits = -15; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET default_transaction_isolation = 'serializable'; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function or limit
SET default_transaction_read_only = on; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET plan_cache_mode = force_custom_plan; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET enable_indexscan = off; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET jit = on; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function or limit
SET statement_timeout = '1ms'; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function or limit
SET lock_timeout = '1ms'; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET work_mem = '64kB'; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET quote_all_identifiers = on; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET client_encoding = 'LATIN1'; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET default_table_access_method = 'heap'; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET session_authorization = DEFAULT; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SET loquat.mine = 'x'; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: privilege
DO $$ BEGIN END $$; SET plpgsql.variable_conflict = 'error'

-- bot: function
SET plpgsql.variable_conflict = 'error'; SELECT loquat.record_result('{event}', 99, '{}')

-- bot: privilege
SET session_preload_libraries = 'auto_explain'

-- bot: privilege
SET lo_compat_privileges = on

-- bot: privilege
SET log_statement = 'all'

-- bot: privilege
SET log_min_messages = 'debug5'

-- bot: privilege
SET zero_damaged_pages = on

-- bot: privilege
SET ignore_checksum_failure = on

-- bot: privilege
SET deadlock_timeout = '1h'

-- bot: privilege
SET commit_delay = 100000

-- bot: privilege
SET track_activities = off

-- bot: privilege
SET max_stack_depth = '7MB'

-- bot: privilege
SET update_process_title = on

-- bot: privilege
SET wal_compression = on

-- bot: privilege
SET backtrace_functions = 'x'

-- bot: privilege
SET allow_in_place_tablespaces = on

-- bot: privilege
SET session_replication_role = 'replica'

-- bot: privilege
SET temp_file_limit = -1

-- bot: privilege
SET role = 'loquat_system'

-- bot: privilege
SET session_authorization = 'loquat_bot_runner'

-- bot: limit
SET max_locks_per_transaction = 1

-- bot: limit
SET shared_buffers = '1MB'

-- bot: limit
SET max_connections = 1

-- bot: limit
SET unix_socket_directories = '/tmp'

-- bot: limit
SET max_notify_queue_pages = 100000

-- bot: limit
SET listen_addresses = '*'

-- bot: limit
SET data_directory = '/tmp'

-- bot: limit
SET config_file = '/tmp/x'

-- bot: limit
SET block_size = 4096
