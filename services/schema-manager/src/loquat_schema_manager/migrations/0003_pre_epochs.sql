-- A restored database has its name and another past: whoever looked at it before has to look again.
ALTER TABLE databases ADD COLUMN epoch bigint NOT NULL DEFAULT 1;
