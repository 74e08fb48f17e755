-- Merges that links have followed go after their days, the oldest first; of an erase the row stays, without its columns.
CREATE INDEX followings_ended ON followings (ended_at) WHERE state <> 'open' AND kind = 'merge';

-- Who carries out a change set: the key of an advisory lock that its process holds for as long as it lives. Null: nobody can tell.
ALTER TABLE change_sets ADD COLUMN holder bigint;
