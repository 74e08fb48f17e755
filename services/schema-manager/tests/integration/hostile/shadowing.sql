-- editor: privilege
CREATE TEMP TABLE contacts (id int)

-- bot: privilege
CREATE FUNCTION pg_temp.now() RETURNS timestamptz LANGUAGE sql RETURN 'infinity'

-- editor: harmless
CREATE FUNCTION public.sha256(bytea) RETURNS bytea LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); RETURN $1; END $t$

-- editor: harmless
CREATE FUNCTION public.jsonb_typeof(jsonb) RETURNS jsonb LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); RETURN $1; END $t$

-- editor: harmless
CREATE FUNCTION public.uuidv7(int DEFAULT 1) RETURNS int LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); RETURN $1; END $t$

-- editor: harmless
CREATE FUNCTION public.current_database(name DEFAULT '') RETURNS name LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); RETURN $1; END $t$

-- editor: harmless
CREATE FUNCTION public.same(uuid, uuid) RETURNS uuid LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); RETURN $1; END $t$; CREATE OPERATOR public.= (FUNCTION = public.same, LEFTARG = uuid, RIGHTARG = uuid)

-- editor: harmless
CREATE FUNCTION public.arrow(jsonb, text) RETURNS jsonb LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); RETURN $1; END $t$; CREATE OPERATOR public.->> (FUNCTION = public.arrow, LEFTARG = jsonb, RIGHTARG = text)

-- editor: privilege
CREATE CAST (text AS uuid) WITH INOUT AS IMPLICIT

-- editor: harmless
CREATE TYPE public.mood AS (a text); CREATE FUNCTION public.to_json(public.mood) RETURNS public.mood LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); RETURN $1; END $t$

-- editor: privilege
CREATE OPERATOR CLASS evil DEFAULT FOR TYPE uuid USING btree AS OPERATOR 1 <(uuid, uuid)

-- editor: harmless
CREATE COLLATION public."default" FROM "C"

-- editor: harmless
CREATE TABLE public.events (id uuid); CREATE TABLE public.results (id int)

-- bot: function
SET search_path = public, pg_catalog; SELECT loquat.record_result('{event}', 0, '{"state": 1}')

-- bot: function
SET search_path = pg_temp, public; SELECT loquat.record_result('{event}', 77, '{}')

-- bot: function
CREATE TYPE public.trick AS (a int); CREATE FUNCTION public.as_jsonb(public.trick) RETURNS jsonb LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); RETURN '{}'; END $t$; CREATE CAST (public.trick AS jsonb) WITH FUNCTION public.as_jsonb AS IMPLICIT; SELECT loquat.record_result('{event}', 99, ROW(1)::public.trick)

-- editor: harmless
CREATE TYPE public.sly AS (a int); CREATE FUNCTION public.as_uuid(public.sly) RETURNS uuid LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); RETURN gen_random_uuid(); END $t$; CREATE CAST (public.sly AS uuid) WITH FUNCTION public.as_uuid AS IMPLICIT

-- editor: harmless
CREATE FUNCTION public.unnest(uuid[]) RETURNS SETOF uuid LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); RETURN QUERY SELECT gen_random_uuid(); END $t$

-- editor: harmless
CREATE FUNCTION public.keep(jsonb, jsonb) RETURNS jsonb LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); RETURN $2; END $t$; CREATE AGGREGATE public.jsonb_agg(jsonb) (SFUNC = public.keep, STYPE = jsonb)

-- editor: harmless
CREATE FUNCTION public.loud() RETURNS trigger LANGUAGE plpgsql AS $t$ BEGIN INSERT INTO public.trojan_log VALUES (current_user, session_user); PERFORM set_config('search_path', 'public', false); RETURN NEW; END $t$; CREATE TRIGGER loud BEFORE INSERT OR UPDATE OR DELETE ON public.bookings FOR EACH ROW EXECUTE FUNCTION public.loud(); INSERT INTO public.bookings VALUES (1, 'x')

-- editor: harmless
CREATE FUNCTION public.index_me(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $t$ BEGIN RETURN current_user; END $t$; CREATE INDEX ON public.bookings (public.index_me(note)); ANALYZE public.bookings

-- editor: harmless
CREATE DOMAIN public.jsonb AS text; CREATE DOMAIN public.uuid AS text; CREATE DOMAIN public.json AS text

-- bot: privilege
CREATE TEMP VIEW messages AS SELECT 1

-- bot: privilege
CREATE TABLE pg_temp.events (id uuid)

-- bot: privilege
CREATE FUNCTION pg_catalog.evil() RETURNS int LANGUAGE sql RETURN 1
