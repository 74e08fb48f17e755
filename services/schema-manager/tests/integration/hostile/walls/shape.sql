-- DROP of a platform function's overload | 42501
DROP FUNCTION loquat.record_result(uuid, bigint, jsonb) CASCADE

-- DROP of an index | 42501
DROP INDEX public.messages_wamid_out__lq

-- DROP of a constraint | 42501
ALTER TABLE public.contacts DROP CONSTRAINT contacts_phone_number__lq

-- DROP of a column with all that hangs on it | 42501
ALTER TABLE public.messages DROP COLUMN status CASCADE

-- DROP of a type | 42501 or 2BP01
DROP TYPE public.contacts CASCADE

-- DROP of many, one's own among them | 42501
DROP TABLE bookings, public.messages

-- a column renamed | 42501
ALTER TABLE public.contacts RENAME COLUMN name TO surname

-- a table renamed | 42501
ALTER TABLE public.contacts RENAME TO people

-- an index renamed | 42501
ALTER INDEX public.contacts_pkey__lq RENAME TO mine

-- a table moved to another schema | 42501
ALTER TABLE public.messages SET SCHEMA extensions

-- a table taken into another schema's place | 42501
ALTER TABLE bookings SET SCHEMA loquat

-- another owner | 42501
ALTER TABLE public.messages OWNER TO CURRENT_USER

-- another owner for all that was the system's | 42501
REASSIGN OWNED BY loquat_system TO CURRENT_USER

-- all that the system owns dropped | 42501
DROP OWNED BY loquat_system CASCADE

-- a default that runs a function of one's own | 42501
ALTER TABLE public.contacts ALTER COLUMN name SET DEFAULT current_user

-- a check that runs a function of one's own | 42501
CREATE FUNCTION never(text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN false; ALTER TABLE public.messages ADD CHECK (never(text)) NOT VALID

-- a not null that stops the platform | 42501
ALTER TABLE public.messages ALTER COLUMN text SET NOT NULL

-- a generated column | 42501
ALTER TABLE public.contacts ADD COLUMN shout text GENERATED ALWAYS AS (upper(name)) STORED

-- a virtual generated column | 42501
ALTER TABLE public.contacts ADD COLUMN shout text GENERATED ALWAYS AS (upper(name)) VIRTUAL

-- another type | 42501
ALTER TABLE public.conversations ALTER COLUMN version TYPE smallint

-- storage | 42501
ALTER TABLE public.messages SET (autovacuum_enabled = false)

-- another tablespace | 42501
ALTER TABLE public.messages SET TABLESPACE pg_default

-- no log | 42501
ALTER TABLE public.messages SET UNLOGGED

-- another access method | 42501
ALTER TABLE public.messages SET ACCESS METHOD heap

-- replica identity | 42501
ALTER TABLE public.messages REPLICA IDENTITY FULL

-- a unique index that stops the platform | 42501 | console 25001
CREATE UNIQUE INDEX CONCURRENTLY one ON public.messages (conversation_id)

-- a policy on a system table | 42501
CREATE POLICY nobody ON public.contacts FOR ALL TO PUBLIC USING (false) WITH CHECK (false)

-- forced row security | 42501
ALTER TABLE public.contacts FORCE ROW LEVEL SECURITY

-- a statistics object with an expression that runs as the owner | 42501
CREATE STATISTICS sly ON (lower(name)), created_at FROM public.contacts

-- a comment on a table | 42501
COMMENT ON TABLE public.contacts IS 'call this number'

-- a comment on a column | 42501
COMMENT ON COLUMN public.messages.text IS 'x'

-- a comment on a constraint | 42501
COMMENT ON CONSTRAINT contacts_pkey__lq ON public.contacts IS 'x'

-- a comment on a function | 42501
COMMENT ON FUNCTION loquat.record_result IS 'x'

-- a comment on a schema | 42501
COMMENT ON SCHEMA public IS 'x'

-- a comment on a role | 42501
COMMENT ON ROLE loquat_system IS 'x'

-- a comment on the database | 42501
COMMENT ON DATABASE {me} IS 'x'

-- a security label: there is no provider | 22023
SECURITY LABEL ON TABLE public.contacts IS 'x'

-- a child by INHERIT | 42501
CREATE TABLE child (LIKE public.messages); ALTER TABLE child INHERIT public.messages

-- a system table made a partition | 42501
CREATE TABLE roof (LIKE public.messages) PARTITION BY LIST (direction); ALTER TABLE roof ATTACH PARTITION public.messages DEFAULT

-- a system table made a child | 42501
ALTER TABLE public.messages INHERIT bookings

-- a partition of a system table | 42501 or 42P16
CREATE TABLE part PARTITION OF public.conversations FOR VALUES IN ('open')

-- a row type as a column | 42501
CREATE TABLE typed (m public.messages)

-- a row type inside a composite type | 42501
CREATE TYPE box AS (c public.conversations)

-- a row type as a domain | 42501
CREATE DOMAIN sly AS public.contacts CHECK (true)

-- a row type as an array in a composite type | 42501
CREATE TYPE boxes AS (c public.conversations[])

-- a row type by LIKE has no tie to it | harmless
CREATE TABLE like_them (LIKE public.contacts INCLUDING ALL); DROP TABLE like_them

-- a row type as a range | 42501
CREATE TYPE span AS RANGE (subtype = public.contacts)

-- a cast from a row type | 42501
CREATE FUNCTION thin(public.contacts) RETURNS text LANGUAGE sql AS 'SELECT 1::text'; CREATE CAST (public.contacts AS text) WITH FUNCTION thin

-- a typed table of a row type | 42809 or 42501
CREATE TABLE typed OF public.contacts

-- an aggregate over a row type | 42501
CREATE AGGREGATE gather(public.contacts) (SFUNC = array_append, STYPE = public.contacts[])

-- a publication of a system table | 42501
CREATE PUBLICATION leak FOR TABLE public.messages

-- a foreign table in its place | 42501 or 42704
CREATE FOREIGN TABLE far (id uuid) SERVER nowhere

-- what belongs to an extension | 42501 or 42704
ALTER FUNCTION loquat.record_result DEPENDS ON EXTENSION plpgsql

-- another body for a platform function | 42501
CREATE OR REPLACE FUNCTION loquat.as_uuid(value text) RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'

-- another owner for a platform function | 42501
ALTER FUNCTION loquat.commit_run OWNER TO CURRENT_USER

-- another setting for a platform function | 42501
ALTER FUNCTION loquat.record_inbound RESET ALL

-- a function that looks as if it was the platform's | 42501
CREATE FUNCTION loquat.record_result(event text, version text, result text) RETURNS void LANGUAGE sql AS ''

-- the event trigger that bounds waiting | 42501
ALTER EVENT TRIGGER limit_lock_wait DISABLE

-- the event trigger dropped | 42501
DROP EVENT TRIGGER limit_lock_wait

-- the event trigger's function | 42501
CREATE OR REPLACE FUNCTION loquat_walls.limit_lock_wait() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'

-- event triggers switched off | 42501
SET event_triggers = off

-- an event trigger of one's own | 42501
CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER watch ON login EXECUTE FUNCTION watch()
