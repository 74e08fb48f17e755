-- bot: privilege
SET ROLE loquat_system

-- bot: privilege
SET ROLE postgres

-- bot: privilege
SET ROLE {other}_owner

-- bot: privilege
SET SESSION AUTHORIZATION loquat_provisioner

-- bot: privilege
SET ROLE NONE; CREATE TABLE public.mine (a int)

-- bot: privilege
SET ROLE NONE; SELECT * FROM public.messages

-- bot: privilege
CREATE ROLE evil SUPERUSER

-- bot: privilege
ALTER ROLE {me}_bot SUPERUSER

-- bot: privilege
SET ROLE NONE; ALTER ROLE {me}_bot CONNECTION LIMIT -1

-- bot: refused
SET ROLE NONE; ALTER ROLE {me}_bot RENAME TO evil

-- bot: privilege
SET ROLE NONE; ALTER ROLE {me}_bot VALID UNTIL '2000-01-01'

-- bot: privilege
SET ROLE NONE; GRANT {me}_bot TO {other}_bot

-- bot: privilege
SET ROLE NONE; SET ROLE loquat_service

-- bot: privilege
ALTER ROLE {me}_editor PASSWORD 'x'

-- bot: privilege
ALTER ROLE loquat_bot_runner SET search_path = public

-- bot: privilege
ALTER ROLE ALL IN DATABASE {me} SET search_path = public

-- bot: privilege
ALTER DATABASE {me} SET search_path = public

-- bot: privilege
ALTER DATABASE {me} CONNECTION LIMIT 100

-- bot: privilege
GRANT {owner} TO {other}_bot

-- bot: privilege
GRANT {owner} TO loquat_system

-- bot: privilege
GRANT CONNECT ON DATABASE {me} TO {other}_bot

-- bot: harmless
SET ROLE NONE; GRANT CONNECT ON DATABASE {me} TO {other}_bot

-- bot: harmless
GRANT ALL ON public.messages TO PUBLIC

-- bot: harmless
GRANT EXECUTE ON FUNCTION loquat.record_result TO PUBLIC

-- bot: harmless
GRANT CREATE ON SCHEMA public TO PUBLIC

-- editor: harmless
CREATE TABLE gift (a int); GRANT ALL ON gift TO PUBLIC

-- editor: privilege
CREATE TABLE owned (a int); ALTER TABLE owned OWNER TO loquat_system

-- editor: privilege
CREATE FUNCTION owned() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1; ALTER FUNCTION owned OWNER TO postgres

-- bot: privilege
SET ROLE NONE; REASSIGN OWNED BY {owner} TO {me}_bot

-- bot: privilege
REASSIGN OWNED BY {owner} TO loquat_system

-- bot: privilege
DROP ROLE {me}_editor

-- bot: privilege
SELECT rolpassword FROM pg_authid

-- bot: privilege
SELECT * FROM pg_db_role_setting
