-- A copy of a project's database: a restored backup, or a clone that is another project's from now on. The rules stand at the head of 0002.

-- Makes the copy one in which nothing of the past is done again, before anybody but the provisioner may connect: no message waits to be
-- sent, no event waits to be run, no result waits to be applied. `home` is the name that its database has when it is opened; `former` the
-- one of the project that it was copied from, if it is another one: that project's owner has no right here any more, and no timer runs.
-- Repeated, or called on a database of this epoch, it changes nothing.
CREATE FUNCTION loquat.renew_project(project text, epoch bigint, home name, former name DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE leaver constant name := former || '_owner'; t regclass;
BEGIN
  UPDATE loquat.identity AS i SET project = renew_project.project, epoch = renew_project.epoch, bot_login = home || '_bot', opened_at = now()
  WHERE i.epoch < renew_project.epoch;
  IF NOT FOUND THEN RETURN false; END IF;
  -- Whether it went out after the copy was made nobody here knows. A receipt that comes says more.
  UPDATE public.messages AS m SET status = 'unknown', transitions = m.transitions || jsonb_build_object('unknown', now())
  FROM loquat.outbox AS o WHERE m.id = o.message_id AND m.status = 'queued';
  DELETE FROM loquat.outbox;
  -- A result at a conversation's present version would be applied with the next event.
  DELETE FROM loquat.results AS r USING public.conversations AS c WHERE (r.conversation_id, r.version) = (c.id, c.version);
  UPDATE loquat.events AS e SET outcome = 'discarded', finished_at = now() WHERE e.outcome IS NULL;
  IF former IS NOT NULL THEN
    UPDATE loquat.system_automations AS a SET active = false, updated_at = now() WHERE a.active;
  END IF;
  IF to_regrole(quote_ident(leaver)) IS NOT NULL THEN
    EXECUTE format('REVOKE ALL ON SCHEMA public, loquat FROM %I', leaver);
    EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA loquat FROM %I', leaver);
    FOR t IN SELECT oid FROM pg_class WHERE relowner = 'loquat_system'::regrole AND relkind IN ('r', 'v', 'S') AND relnamespace IN
             ('public'::regnamespace, 'loquat'::regnamespace) LOOP
      EXECUTE format('REVOKE ALL ON %s FROM %I', t, leaver);
    END LOOP;
  END IF;
  RETURN true;
END $$;

REVOKE ALL ON FUNCTION loquat.renew_project FROM PUBLIC;
GRANT EXECUTE ON FUNCTION loquat.renew_project TO loquat_provisioner;
