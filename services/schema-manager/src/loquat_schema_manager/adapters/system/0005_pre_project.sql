-- What the database says of itself, and how it is given to its project. The rules stand at the head of 0002.

-- A service compares this with the directory when it opens a connection.
CREATE FUNCTION loquat.whoami() RETURNS TABLE (project text, epoch bigint) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC SELECT i.project, i.epoch FROM loquat.identity AS i; END;

-- The markers of P7: accepted = handled + held + expired + discarded + open; what of the open ones is deferred or dead, bot-runner's rows know.
CREATE FUNCTION loquat.ledger() RETURNS TABLE (accepted bigint, handled bigint, held bigint, expired bigint, discarded bigint, open bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT count(*), count(*) FILTER (WHERE e.outcome = 'handled'), count(*) FILTER (WHERE e.outcome = 'held'), count(*) FILTER (WHERE e.outcome = 'expired'),
         count(*) FILTER (WHERE e.outcome = 'discarded'), count(*) FILTER (WHERE e.outcome IS NULL)
  FROM loquat.events AS e;
END;

-- Gives a fresh database to its project: the provisioner's last step before tenants may connect. Names are derived, so no argument is a role.
CREATE FUNCTION loquat.open_project(project text, epoch bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE owner constant name := current_database() || '_owner';
BEGIN
  INSERT INTO loquat.identity (project, epoch, bot_login) VALUES (open_project.project, open_project.epoch, current_database() || '_bot')
  ON CONFLICT (singleton) DO UPDATE SET project = excluded.project, epoch = excluded.epoch, bot_login = excluded.bot_login
  WHERE identity.epoch < excluded.epoch;
  EXECUTE format('GRANT USAGE, CREATE ON SCHEMA public TO %I', owner);
  EXECUTE format('GRANT SELECT ON public.contacts, public.conversations, public.messages TO %I', owner);
  EXECUTE format('GRANT USAGE ON SCHEMA loquat TO %I', owner);
  EXECUTE format('GRANT EXECUTE ON FUNCTION loquat.record_result TO %I', owner);
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA loquat FROM PUBLIC;
GRANT EXECUTE ON FUNCTION loquat.whoami TO loquat_service;
GRANT EXECUTE ON FUNCTION loquat.ledger TO loquat_bot_runner, loquat_conversation_log;
GRANT EXECUTE ON FUNCTION loquat.open_project TO loquat_provisioner;
