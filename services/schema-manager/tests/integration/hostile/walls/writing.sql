-- MERGE into a system table | 42501
MERGE INTO public.contacts AS c USING (SELECT gen_random_uuid() AS id) AS s ON c.id = s.id WHEN NOT MATCHED THEN INSERT (name) VALUES ('forged')

-- INSERT that conflicts | 42501
INSERT INTO public.messages SELECT * FROM public.messages ON CONFLICT (id) DO UPDATE SET text = 'forged'

-- a data-modifying CTE | 42501
WITH gone AS (DELETE FROM public.messages RETURNING *) SELECT count(*) FROM gone

-- UPDATE through a view that could be updated | 42501
CREATE VIEW simple AS SELECT id, text FROM public.messages; UPDATE simple SET text = 'forged'

-- INSERT through a view with a check | 42501
CREATE VIEW checked AS SELECT * FROM public.contacts WHERE name IS NULL WITH CHECK OPTION; INSERT INTO checked (phone_number) VALUES ('1')

-- INSTEAD OF trigger of one's own that writes | 42501
CREATE VIEW instead AS SELECT id, name FROM public.contacts; CREATE FUNCTION forge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE public.contacts SET name = NEW.name; RETURN NEW; END $$; CREATE TRIGGER forge INSTEAD OF UPDATE ON instead FOR EACH ROW EXECUTE FUNCTION forge(); INSERT INTO bookings VALUES (1); UPDATE instead SET name = 'forged'

-- SECURITY DEFINER of one's own that writes | 42501
CREATE FUNCTION definer() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$ UPDATE public.messages SET text = 'forged' $$; SELECT definer()

-- a cursor that updates where it stands | 42501
DO $$ DECLARE c CURSOR FOR SELECT * FROM public.contacts FOR UPDATE; r record; BEGIN OPEN c; FETCH c INTO r; UPDATE public.contacts SET name = 'forged' WHERE CURRENT OF c; END $$

-- a row lock that would keep the platform out | 42501
SELECT * FROM public.conversations FOR NO KEY UPDATE NOWAIT

-- a row lock through a view | 42501
CREATE VIEW held AS SELECT * FROM public.conversations; SELECT * FROM held FOR SHARE

-- a row lock as a prepared statement | 42501
PREPARE grip AS SELECT * FROM public.contacts FOR UPDATE; EXECUTE grip

-- TRUNCATE of several | 42501
TRUNCATE public.contacts, public.conversations, public.messages CASCADE

-- COPY into a system table | 42501
COPY public.contacts (name) FROM PROGRAM 'echo forged'

-- a foreign key that makes the platform wait | 42501
ALTER TABLE bookings ADD COLUMN person uuid REFERENCES public.contacts (id) ON DELETE SET NULL

-- a foreign key that is not checked | 42501
ALTER TABLE bookings ADD COLUMN person uuid; ALTER TABLE bookings ADD FOREIGN KEY (person) REFERENCES public.contacts (id) NOT VALID

-- a foreign key of a partitioned table | 42501
CREATE TABLE parted (person uuid REFERENCES public.conversations (id)) PARTITION BY HASH (person)

-- a constraint trigger that refers to a system table | 42501
CREATE FUNCTION quiet() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE CONSTRAINT TRIGGER quiet AFTER DELETE ON public.messages FROM bookings DEFERRABLE FOR EACH ROW EXECUTE FUNCTION quiet()

-- an event that is no trigger's: TRUNCATE | 42501
CREATE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER loud BEFORE TRUNCATE ON public.contacts EXECUTE FUNCTION loud()

-- switching triggers off | 42501
ALTER TABLE public.messages DISABLE TRIGGER ALL

-- the platform's sequence | 42501
SELECT setval('loquat.outbox_seq_seq', 1)

-- the platform's sequence: owned by a column of one's own | 42501
ALTER SEQUENCE loquat.outbox_seq_seq OWNED BY bookings.id

-- statistics that mislead the planner | 42501
SELECT pg_restore_relation_stats('schemaname', 'public', 'relname', 'messages', 'relpages', 2000000000, 'reltuples', 2000000000::real)

-- statistics taken away | 42501
SELECT pg_clear_relation_stats('loquat', 'events')

-- statistics of a column | 42501
SELECT pg_clear_attribute_stats('public', 'messages', 'text', false)

-- counters set back | 42501
SELECT pg_stat_reset_single_table_counters('public.messages'::regclass)

-- an index' pages summarized | 42501 or 42809
SELECT brin_summarize_new_values('public.messages_conversation_id__lq'::regclass)

-- a GIN index' pending list | 42501 or 42809 or 55000
SELECT gin_clean_pending_list('public.messages_conversation_id__lq'::regclass)

-- VACUUM that takes the table for itself: passed over with a warning | harmless | console 25001
VACUUM (FULL, ANALYZE) public.messages

-- VACUUM of everything: passes over what is not one's own | harmless | console 25001
VACUUM (SKIP_LOCKED)

-- ANALYZE of the platform's own | harmless
ANALYZE loquat.events
