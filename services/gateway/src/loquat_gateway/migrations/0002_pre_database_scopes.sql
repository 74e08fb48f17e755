-- A key that could do everything still can: the scopes of project databases came later.
UPDATE api_keys SET scopes = scopes || ARRAY['database:read', 'database:write', 'database:sql', 'database:own']
WHERE scopes @> ARRAY['projects:read', 'projects:write', 'numbers:read', 'numbers:write', 'bots:read', 'bots:write', 'conversations:read',
                      'messages:write', 'dead-letters:read', 'dead-letters:write']
  AND NOT scopes @> ARRAY['database:read', 'database:write', 'database:sql', 'database:own'];
