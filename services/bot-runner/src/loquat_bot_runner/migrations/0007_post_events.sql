-- What was kept of a person's events is found without reading all of the project's.
CREATE INDEX runs_event ON runs (event_id);
CREATE INDEX logs_event ON logs (event_id);
