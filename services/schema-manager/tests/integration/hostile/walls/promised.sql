-- reading what is promised: all contacts | harmless
SELECT id, name, phone_number, attributes, merged_into, created_at, updated_at FROM public.contacts

-- reading what is promised: a join of all three | harmless
SELECT m.text, c.status, p.name FROM public.messages AS m JOIN public.conversations AS c ON c.id = m.conversation_id JOIN public.contacts AS p ON p.id = c.contact_id

-- reading what is promised: through a view of one's own | harmless
CREATE VIEW talk AS SELECT direction, count(*) AS n FROM public.messages GROUP BY direction; SELECT * FROM talk; DROP VIEW talk

-- reading what is promised: into a table of one's own | harmless
CREATE TABLE copied AS SELECT * FROM public.messages; ALTER TABLE copied ADD PRIMARY KEY (id); DROP TABLE copied

-- a lock that keeps nobody from anything | harmless
DO $$ BEGIN LOCK TABLE public.messages IN ACCESS SHARE MODE; END $$

-- reading what is not promised: addresses of contacts | 42501
SELECT * FROM loquat.addresses

-- reading what is not promised: through a view of one's own | 42501
CREATE VIEW peek AS SELECT * FROM loquat.results; SELECT * FROM peek

-- reading what is not promised: through a rule | 42501
CREATE VIEW sly AS SELECT 1 AS id; CREATE RULE peek AS ON UPDATE TO sly DO INSTEAD SELECT * FROM loquat.outbox; UPDATE sly SET id = 2

-- reading what is not promised: through a function that says it is somebody | 42501
CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = loquat AS 'SELECT count(*) FROM loquat.outbox'; SELECT peek()

-- reading what is not promised: the plan with its estimates | 42501
EXPLAIN ANALYZE SELECT * FROM loquat.events

-- reading what is not promised: as XML | 42501
SELECT query_to_xml('SELECT * FROM loquat.identity', true, false, '')

-- reading what is not promised: a table as XML, where the server has any | 42501 or 0A000
SELECT table_to_xml('loquat.bot_configuration', true, false, '')

-- reading what is not promised: a query inside text search | 42501
SELECT * FROM ts_stat('SELECT to_tsvector(body::text) FROM loquat.outbox')

-- reading what is not promised: the sample that the planner keeps | harmless
DO $$ BEGIN IF EXISTS (SELECT FROM pg_stats WHERE schemaname = 'loquat') THEN RAISE EXCEPTION 'statistics of what may not be read'; END IF; END $$

-- reading what is not promised: the raw statistics | 42501
SELECT * FROM pg_catalog.pg_statistic

-- reading what is not promised: the last value of a sequence | harmless
DO $$ BEGIN IF pg_sequence_last_value('loquat.outbox_seq_seq') IS NOT NULL THEN RAISE EXCEPTION 'it says how many'; END IF; END $$

-- reading what is not promised: COPY of a query to the server's disk | 42501
COPY (SELECT * FROM public.messages) TO '/tmp/messages'
