-- A key that could do everything still can: merging and erasing contacts came later.
UPDATE api_keys SET scopes = scopes || ARRAY['contacts:write']
WHERE scopes @> ARRAY['projects:read', 'projects:write', 'numbers:read', 'numbers:write', 'bots:read', 'bots:write', 'conversations:read',
                      'messages:write', 'dead-letters:read', 'dead-letters:write', 'database:read', 'database:write', 'database:sql', 'database:own']
  AND NOT scopes @> ARRAY['contacts:write'];
