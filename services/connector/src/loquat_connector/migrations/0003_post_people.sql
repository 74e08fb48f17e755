-- Whoever is to be forgotten is found without reading all that the project ever sent.
CREATE INDEX sends_recipient ON sends (project_id, recipient) WHERE recipient <> 'erased';
CREATE INDEX sends_contact ON sends (project_id, contact_id) WHERE recipient <> 'erased';
