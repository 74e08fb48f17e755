-- The system schema of a project database. Run by schema-manager after SET ROLE loquat_system, in a clone of loquat_base.
-- Rules: indexes and constraints in public end in __lq; every foreign key has an index; nothing of a tenant is referenced.

-- Global form (no IN SCHEMA): only this form takes away what PUBLIC has by default.
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC;     -- does not reach row types; see the end of this file
GRANT USAGE ON SCHEMA public, loquat TO loquat_service;

-- ---------------------------------------------------------------- public: the three tables a project may read
CREATE TABLE public.contacts (
    id           uuid        NOT NULL DEFAULT uuidv7() CONSTRAINT contacts_pkey__lq PRIMARY KEY,
    name         text,
    phone_number text        CONSTRAINT contacts_phone_number__lq UNIQUE,
    attributes   jsonb       NOT NULL DEFAULT '{}',
    merged_into  uuid        CONSTRAINT contacts_merged_into_fkey__lq REFERENCES public.contacts,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX contacts_merged_into__lq ON public.contacts (merged_into) WHERE merged_into IS NOT NULL;

CREATE TABLE public.conversations (
    id         uuid        NOT NULL DEFAULT uuidv7() CONSTRAINT conversations_pkey__lq PRIMARY KEY,
    contact_id uuid        NOT NULL CONSTRAINT conversations_contact_id_fkey__lq REFERENCES public.contacts,
    number_id  text        NOT NULL,
    status     text        NOT NULL DEFAULT 'open' CONSTRAINT conversations_status__lq CHECK (status IN ('open', 'closed')),
    state      text        NOT NULL DEFAULT 'unstructured' CONSTRAINT conversations_state__lq CHECK (length(state) BETWEEN 1 AND 60),
    holder     text        NOT NULL DEFAULT 'bot',          -- 'bot' or a person's id
    version    bigint      NOT NULL DEFAULT 0,              -- moves in commit_run alone; see loquat.results
    opened_at  timestamptz NOT NULL DEFAULT now(),
    closed_at  timestamptz
) WITH (fillfactor = 80);                                   -- one HOT update per run
CREATE UNIQUE INDEX conversations_open__lq ON public.conversations (contact_id, number_id) WHERE status = 'open';
CREATE INDEX conversations_contact_id__lq ON public.conversations (contact_id, opened_at DESC);

CREATE TABLE public.messages (
    id              uuid        NOT NULL CONSTRAINT messages_pkey__lq PRIMARY KEY,     -- the event's id, or reply_id(event, n)
    conversation_id uuid        NOT NULL CONSTRAINT messages_conversation_id_fkey__lq REFERENCES public.conversations,
    direction       text        NOT NULL CONSTRAINT messages_direction__lq CHECK (direction IN ('in', 'out')),
    type            text        NOT NULL,                   -- no CHECK: an unknown type is kept (P6)
    text            text,
    content         jsonb,
    raw             json,                                   -- as it came, text and order kept; jsonb refuses \u0000 (P6)
    wamid           text,                                   -- both ends of a message may be numbers of one project: unique for ours alone
    reply_to        text,                                   -- a wamid, perhaps one we never saw
    sender          text        NOT NULL CONSTRAINT messages_sender__lq CHECK (sender IN ('contact', 'bot', 'person', 'automation')),
    sender_id       text,
    status          text        NOT NULL DEFAULT 'queued',
    transitions     jsonb       NOT NULL DEFAULT '{}',      -- status -> first time
    error_code      int,
    error_title     text,
    pricing         text,
    billable        boolean,
    sent_at         timestamptz NOT NULL DEFAULT now(),     -- the sender's clock
    recorded_at     timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 85);                                   -- four status changes without touching an index
CREATE INDEX messages_conversation_id__lq ON public.messages (conversation_id, sent_at);
CREATE UNIQUE INDEX messages_wamid_out__lq ON public.messages (wamid) WHERE direction = 'out';  -- receipts find their message
CREATE INDEX messages_wamid_in__lq ON public.messages (wamid) WHERE direction = 'in';           -- what a reply or a reaction is about

GRANT SELECT ON public.contacts, public.conversations, public.messages TO loquat_conversation_log;
GRANT SELECT ON public.conversations TO loquat_bot_runner;

-- ---------------------------------------------------------------- loquat: nothing here is readable by a project
CREATE TABLE loquat.identity (
    singleton boolean NOT NULL DEFAULT true PRIMARY KEY CHECK (singleton),
    project   text    NOT NULL,
    epoch     bigint  NOT NULL,
    bot_login name    NOT NULL,                             -- record_result is for this session_user
    opened_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE loquat.addresses (
    kind       text NOT NULL CHECK (kind IN ('user_id', 'wa_id', 'phone', 'username')),
    value      text NOT NULL,
    contact_id uuid NOT NULL REFERENCES public.contacts DEFERRABLE INITIALLY IMMEDIATE,
    PRIMARY KEY (kind, value)
);
CREATE INDEX ON loquat.addresses (contact_id);
GRANT SELECT ON loquat.addresses TO loquat_conversation_log;

-- One row per event: the marker, and the ledger of P7. Inserted by whichever reader of the inbox comes first.
CREATE TABLE loquat.events (
    id              uuid        NOT NULL PRIMARY KEY,
    kind            text        NOT NULL CHECK (kind IN ('message', 'order', 'update')),
    conversation_id uuid        CHECK (kind = 'update' OR conversation_id IS NOT NULL),    -- no foreign key: nothing here locks a system row for long
    recorded_at     timestamptz NOT NULL DEFAULT now(),
    opened_at       timestamptz,                            -- begin_run gave it to a handler
    outcome         text        CHECK (outcome IN ('handled', 'held', 'expired', 'discarded')),
    finished_at     timestamptz
) WITH (fillfactor = 80);
CREATE INDEX ON loquat.events (conversation_id);
CREATE INDEX ON loquat.events (recorded_at) WHERE outcome IS NULL;

-- Fields of Meta's that name a person and are no message (echoes, history, calls, preferences, what nobody knows yet): kept whole (P6).
CREATE TABLE loquat.updates (
    event_id    uuid        NOT NULL PRIMARY KEY,
    number_id   text        NOT NULL,
    field       text        NOT NULL,
    addresses   jsonb       NOT NULL,
    raw         json        NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON loquat.updates (recorded_at);
GRANT SELECT ON loquat.updates TO loquat_conversation_log;

-- The fence. One result per event and one per (conversation, version), whether a bot recorded it inside its own transaction or commit_run
-- did. Insert-only and never locked, so an open transaction of a tenant can hold up its own conversation and nothing else.
CREATE TABLE loquat.results (
    event_id        uuid        NOT NULL PRIMARY KEY,
    conversation_id uuid        NOT NULL,
    version         bigint      NOT NULL,
    result          jsonb       NOT NULL,
    recorded_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (conversation_id, version)
);

CREATE TABLE loquat.outbox (
    seq        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id uuid        NOT NULL UNIQUE,
    event_id   uuid        NOT NULL,
    body       jsonb       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON loquat.outbox (event_id);

-- Receipts whose message has not come yet. key is the message id (biz_opaque_callback_data) or the wamid.
CREATE TABLE loquat.receipts (
    key         text        NOT NULL,
    status      text        NOT NULL,
    body        jsonb       NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (key, status)
);

CREATE TABLE loquat.bots (
    id         uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
    name       text        NOT NULL,
    org_id     uuid        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE loquat.bot_configuration (
    id         uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
    bot_id     uuid        NOT NULL REFERENCES loquat.bots ON DELETE CASCADE,
    key        text        NOT NULL,
    value      jsonb       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (bot_id, key)                                    -- also the foreign key's index
);
CREATE TABLE loquat.bot_memories (LIKE loquat.bot_configuration INCLUDING DEFAULTS INCLUDING INDEXES);
ALTER TABLE loquat.bot_memories ADD FOREIGN KEY (bot_id) REFERENCES loquat.bots ON DELETE CASCADE;
CREATE TABLE loquat.system_automations (
    id         uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
    bot_id     uuid        NOT NULL REFERENCES loquat.bots ON DELETE CASCADE,
    name       text        NOT NULL,
    schedule   text        NOT NULL,
    script     text        NOT NULL,
    active     boolean     NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON loquat.system_automations (bot_id);

-- A tenant's column of a table's row type would block every later ALTER TABLE of that table. Every migration that makes a table says this again.
DO $$
DECLARE t regclass;
BEGIN
  FOR t IN SELECT oid FROM pg_class WHERE relnamespace IN ('public'::regnamespace, 'loquat'::regnamespace) AND relkind = 'r' LOOP
    EXECUTE format('REVOKE USAGE ON TYPE %s FROM PUBLIC', t);
  END LOOP;
END $$;
