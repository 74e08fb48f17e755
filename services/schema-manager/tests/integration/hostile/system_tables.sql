-- bot: privilege
DROP TABLE public.messages

-- editor: privilege
TRUNCATE public.contacts

-- bot: privilege
UPDATE public.messages SET text = 'forged'

-- direct: privilege
INSERT INTO public.contacts (name) VALUES ('forged')

-- bot: privilege
DELETE FROM public.conversations

-- editor: privilege
ALTER TABLE public.messages ADD COLUMN evil int

-- editor: privilege
CREATE INDEX evil ON public.messages (text)

-- editor: privilege
CREATE TRIGGER evil BEFORE INSERT ON public.messages EXECUTE FUNCTION suppress_redundant_updates_trigger()

-- editor: privilege
CREATE RULE evil AS ON INSERT TO public.messages DO INSTEAD NOTHING

-- editor: privilege
CREATE POLICY evil ON public.messages USING (false)

-- editor: privilege
ALTER TABLE public.messages ENABLE ROW LEVEL SECURITY

-- editor: privilege
COMMENT ON TABLE public.messages IS 'evil'

-- editor: privilege
CREATE STATISTICS evil ON text, type FROM public.messages

-- bot: privilege
BEGIN; SELECT * FROM public.contacts FOR UPDATE

-- bot: privilege
BEGIN; SELECT * FROM public.conversations FOR KEY SHARE

-- bot: privilege
BEGIN; LOCK TABLE public.messages IN ROW SHARE MODE

-- bot: privilege
BEGIN; LOCK TABLE public.messages IN ACCESS EXCLUSIVE MODE

-- editor: privilege
CREATE TABLE child () INHERITS (public.messages)

-- editor: privilege
CREATE TABLE child PARTITION OF public.messages DEFAULT

-- editor: privilege
CREATE TABLE linked (contact uuid REFERENCES public.contacts)

-- editor: privilege
CREATE TABLE linked (contact uuid REFERENCES public.contacts ON DELETE CASCADE)

-- editor: privilege
CREATE TABLE typed (c public.contacts)

-- editor: privilege
CREATE TABLE typed (c public.contacts[])

-- editor: refused
CREATE TABLE typed OF public.contacts

-- editor: privilege
CREATE DOMAIN evil AS public.messages

-- editor: privilege
CREATE FUNCTION evil(public.contacts) RETURNS int LANGUAGE sql RETURN 1

-- editor: privilege
CREATE VIEW v WITH (security_barrier, security_invoker = false) AS SELECT * FROM public.messages; UPDATE v SET text = 'forged'

-- editor: privilege
CREATE VIEW w AS SELECT id, name FROM public.contacts; CREATE RULE r AS ON UPDATE TO w DO INSTEAD UPDATE public.contacts SET name = 'forged'; UPDATE w SET name = 'x'

-- editor: harmless
VACUUM public.messages

-- editor: harmless
ANALYZE public.messages

-- editor: privilege
CLUSTER public.messages USING messages_pkey__lq

-- editor: privilege
REINDEX TABLE public.messages

-- bot: privilege
COPY public.messages FROM STDIN
