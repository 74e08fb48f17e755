-- Change sets that were ordered with an Idempotency-Key: one that took effect, or may yet, is the only one of its order. `digest` tells whether an
-- order that comes again is the same one.
ALTER TABLE change_sets ADD COLUMN order_id uuid, ADD COLUMN digest bytea;
CREATE UNIQUE INDEX change_sets_order ON change_sets (order_id) WHERE state IN ('applying', 'applied', 'unknown');
