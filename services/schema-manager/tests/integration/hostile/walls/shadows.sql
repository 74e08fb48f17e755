-- a custom table of the system's name in another schema | 42501
CREATE SCHEMA other CREATE TABLE contacts (id int)

-- in a schema that is the platform's | 42501
CREATE TABLE loquat.contacts (id int)

-- in the schema of extensions | 42501
CREATE TABLE extensions.messages (id int)

-- in the schema of the walls | 42501
CREATE FUNCTION loquat_walls.mine() RETURNS int LANGUAGE sql RETURN 1

-- in the catalog | 42501
CREATE TABLE pg_catalog.contacts (id int)

-- in the information schema | 42501
CREATE VIEW information_schema.contacts AS SELECT 1

-- in the temporary schema | 42501
CREATE TEMPORARY TABLE messages (id int)

-- in the temporary schema, without saying so | 42501
SELECT 1 AS id INTO TEMP conversations

-- in the temporary schema: a sequence | 42501
CREATE TEMP SEQUENCE outbox

-- in the temporary schema: a type | 42501 or 3F000
CREATE TYPE pg_temp.jsonb AS (a int)

-- in public: the name is taken | 42P07
CREATE TABLE contacts (id int)

-- in public: a view of that name | 42501 or 42P07 or 42809
CREATE OR REPLACE VIEW messages AS SELECT 1 AS id

-- in public: a function of a catalog's name | harmless
CREATE FUNCTION public.jsonb_array_elements(jsonb, text DEFAULT 'x') RETURNS SETOF jsonb LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); RETURN; END $t$

-- in public: a function of a catalog's name, of a closer type | harmless
CREATE FUNCTION public.coalesce_me(uuid) RETURNS uuid LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); RETURN $1; END $t$; CREATE FUNCTION public.encode(bytea, varchar) RETURNS text LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); RETURN ''; END $t$

-- in public: now() for those who look there first | harmless
CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); RETURN 'infinity'; END $t$

-- in public: set_config | harmless
CREATE FUNCTION public.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); RETURN ''; END $t$

-- in public: an operator of jsonb | harmless
CREATE FUNCTION public.jsonb_has(jsonb, text) RETURNS boolean LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); RETURN true; END $t$; CREATE OPERATOR public.? (FUNCTION = public.jsonb_has, LEFTARG = jsonb, RIGHTARG = text)

-- in public: an operator of text, for a comparison with names | harmless
CREATE FUNCTION public.same(text, name) RETURNS boolean LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); RETURN true; END $t$; CREATE OPERATOR public.= (FUNCTION = public.same, LEFTARG = text, RIGHTARG = name)

-- an operator in the catalog | 42501
CREATE OPERATOR pg_catalog.=== (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int)

-- the catalog's operator changed | 42501
ALTER OPERATOR pg_catalog.= (uuid, uuid) SET (RESTRICT = NONE)

-- the catalog's function replaced | 42501
CREATE OR REPLACE FUNCTION pg_catalog.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'infinity'::timestamptz $$

-- the catalog's function made slow | 42501
ALTER FUNCTION pg_catalog.jsonb_typeof(jsonb) COST 1000000

-- a cast between built-in types | 42501
CREATE CAST (json AS uuid) WITH INOUT AS ASSIGNMENT

-- a cast taken away | 42501
DROP CAST (text AS regclass)

-- an operator class that decides how uuids are sorted | 42501
CREATE OPERATOR CLASS backwards DEFAULT FOR TYPE uuid USING btree AS OPERATOR 1 >(uuid, uuid)

-- an operator family of the catalog | 42501
ALTER OPERATOR FAMILY uuid_ops USING btree ADD FUNCTION 2 (uuid, uuid) uuid_sortsupport(internal)

-- a conversion by default: of inner functions alone, and the catalog's comes first | harmless
CREATE DEFAULT CONVERSION evil FOR 'UTF8' TO 'LATIN1' FROM utf8_to_iso8859_1

-- a text search configuration of the catalog | 42501
ALTER TEXT SEARCH CONFIGURATION pg_catalog.simple DROP MAPPING FOR word

-- a transform | 42501 or 42P17 or 42601
CREATE TRANSFORM FOR text LANGUAGE plpgsql (FROM SQL WITH FUNCTION upper(text))

-- an access method | 42501
CREATE ACCESS METHOD evil TYPE INDEX HANDLER bthandler

-- a collation changed | 42501
ALTER COLLATION pg_catalog."C" RENAME TO d

-- a base type | 42501
CREATE TYPE evil

-- the platform's names for what comes later | harmless
CREATE TABLE identity (id int); CREATE TABLE outbox (id int); CREATE TABLE migrations (id int); CREATE INDEX contacts_later__lq ON bookings (id)

-- a search path at the database | 42501
ALTER DATABASE {me} SET search_path = public, pg_catalog

-- a search path at somebody else's role | 42501
ALTER ROLE loquat_conversation_log IN DATABASE {me} SET search_path = public

-- a search path inside the platform's function | LQ003
SET search_path = public, pg_catalog; SET default_text_search_config = 'simple'; DO $$ BEGIN PERFORM loquat.record_result(gen_random_uuid(), 0, '{}'); EXCEPTION WHEN SQLSTATE 'LQ002' THEN RAISE EXCEPTION USING ERRCODE = 'LQ003'; END $$
