-- Where changes of rows are noted: a table of the project's own, made by its editor when history is switched on for the first time.

CREATE TABLE public.row_history (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    history     uuid        NOT NULL,               -- of one table: the argument of its trigger, which a rename, a dump and a clone keep
    operation   text        NOT NULL CHECK (operation IN ('insert', 'update', 'delete', 'truncate')),
    at          timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    login       text,                               -- bot, editor or direct
    claimed     text,                               -- the key that asked the API, as the session said: an editor's own SQL may say anything
    undoes      bigint,
    transaction text        NOT NULL DEFAULT pg_catalog.pg_current_xact_id()::pg_catalog.text,
    key         jsonb,                              -- after the change, of a deleted row before it; null without a primary key
    old         jsonb,
    new         jsonb
);
CREATE INDEX ON public.row_history (history, id);
CREATE INDEX ON public.row_history (history, pg_catalog.md5(key::pg_catalog.text), id);  -- a key may be longer than an index takes
COMMENT ON TABLE public.row_history IS 'What was changed in tables whose history is switched on. Rows may be deleted; the API looks for its columns.';
