-- bot: privilege
SELECT * FROM loquat.events

-- bot: privilege
SELECT * FROM loquat.bot_configuration

-- bot: privilege
INSERT INTO loquat.results VALUES (gen_random_uuid(), gen_random_uuid(), 1, '{}')

-- bot: privilege
SELECT nextval('loquat.outbox_seq_seq')

-- bot: privilege
SELECT loquat.commit_run('{event}', 0, '{}')

-- editor: privilege
SELECT * FROM loquat.begin_run('{}')

-- direct: privilege
SELECT * FROM loquat.record_inbound('[]')

-- bot: privilege
SELECT loquat.apply_statuses('[]')

-- bot: privilege
SELECT loquat.open_project('mine', 99)

-- bot: privilege
CREATE FUNCTION loquat.evil() RETURNS int LANGUAGE sql RETURN 1

-- bot: privilege
CREATE OR REPLACE FUNCTION loquat.status_rank(status text) RETURNS int LANGUAGE sql RETURN 9

-- editor: privilege
ALTER FUNCTION loquat.record_result SET search_path = public

-- editor: privilege
CREATE SCHEMA mine

-- editor: privilege
DROP SCHEMA public CASCADE

-- editor: privilege
ALTER SCHEMA loquat RENAME TO gone

-- editor: privilege
ALTER DEFAULT PRIVILEGES FOR ROLE loquat_system GRANT ALL ON TABLES TO PUBLIC

-- bot: privilege
SELECT * FROM loquat.ledger()

-- bot: privilege
SELECT * FROM loquat.whoami()

-- direct: privilege
SELECT * FROM loquat.updates

-- editor: privilege
UPDATE loquat.identity SET epoch = 99

-- bot: privilege
SELECT * FROM loquat.addresses

-- bot: privilege
UPDATE loquat.migrations SET checksum = 'x'

-- bot: privilege
SELECT loquat.move_to_open('{event}')

-- bot: privilege
SELECT loquat.apply_result(NULL, NULL)

-- bot: privilege
SELECT loquat.lock_keys(ARRAY['x'])

-- bot: privilege
SELECT loquat.clear_outbox(ARRAY['{event}']::uuid[])

-- bot: privilege
SELECT loquat.say_now('{event}', '{event}', 0, 1, '{"type": "text", "text": "in nobody''s name"}')

-- editor: privilege
SELECT loquat.record_outbound('[]')

-- direct: privilege
SELECT loquat.apply_receipts('[]')

-- bot: privilege
SELECT loquat.reply_id('{event}', 1)

-- bot: privilege
CREATE TABLE typed (r loquat.results)

-- bot: privilege
DO $$ BEGIN PERFORM loquat.commit_run('{event}', 0, '{}'); END $$

-- bot: privilege
SELECT * FROM loquat.bot_memories

-- editor: privilege
INSERT INTO loquat.bot_memories (bot_id, key, value) VALUES (gen_random_uuid(), 'k', '1')

-- bot: privilege
UPDATE contacts SET language = 'xx'

-- bot: privilege
SELECT loquat.apply_contact(gen_random_uuid(), '{}')

-- bot: privilege
SELECT loquat.context_of(gen_random_uuid())

-- bot: privilege
SELECT loquat.configure('greeting', '1')

-- direct: privilege
SELECT loquat.secrets_changed()

-- bot: privilege
SELECT loquat.let_call('postgres')

-- bot: privilege
SELECT loquat.name_bot('x', 'x')

-- editor: function
SELECT loquat.memory_set('{event}', false, 'k', '1')

-- bot: function
SELECT loquat.memory_get(gen_random_uuid(), false, 'k')

-- bot: function
SELECT loquat.memory_set('{event}', true, 'k', '1', '-1 hour')

-- bot: privilege
SELECT * FROM loquat.begin_event('{}', NULL, NULL, false, true)

-- bot: privilege
SELECT * FROM loquat.fail_event('{event}', NULL, 'mine')

-- bot: privilege
SELECT loquat.change_settings('{}')

-- editor: privilege
SELECT loquat.set_holder('{event}', 'bot', NULL, NULL, NULL)

-- direct: privilege
SELECT * FROM loquat.asks

-- bot: privilege
UPDATE public.conversations SET holder = 'bot', needs_attention = false
