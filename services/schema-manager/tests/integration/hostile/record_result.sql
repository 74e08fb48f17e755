-- bot: function
SELECT loquat.record_result(gen_random_uuid(), 0, '{}')

-- bot: function
SELECT loquat.record_result('{closed}', 0, '{}')

-- bot: function
SELECT loquat.record_result('{closed}', 1, '{}')

-- bot: function
SELECT loquat.record_result('{event}', 99, '{}')

-- bot: function
SELECT loquat.record_result('{event}', -1, '{}')

-- bot: function
SELECT loquat.record_result('{waiting}', 0, '{}')

-- bot: function
SELECT loquat.record_result('{event}', {version}, jsonb_build_object('state', repeat('x', 300000)))

-- bot: function
SELECT loquat.record_result('{event}', {version}, jsonb_build_object('pad', repeat('x', 300000)))

-- bot: function
SELECT loquat.record_result('{event}', {version}, '[]')

-- bot: function
SELECT loquat.record_result('{event}', {version}, NULL)

-- bot: function
SELECT loquat.record_result('{event}', {version}, '{"replies": [1]}')

-- bot: function
SELECT loquat.record_result('{event}', {version}, (SELECT jsonb_build_object('replies', jsonb_agg(jsonb_build_object('type', 'text'))) FROM generate_series(1, 51)))

-- editor: function
SELECT loquat.record_result('{event}', {version}, '{}')

-- direct: function
SELECT loquat.record_result('{event}', {version}, '{}')

-- bot without limits: reaper or harmless
DO $$ BEGIN FOR i IN 1..100000 LOOP BEGIN PERFORM loquat.record_result('{event}', 99, '{}'); EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$

-- bot without limits: reaper or harmless
DO $$ BEGIN FOR i IN 1..100000 LOOP BEGIN PERFORM loquat.record_result('{event}', {version}, '{}'); RAISE EXCEPTION 'again'; EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$

-- bot: function
SELECT loquat.record_result('{wish}', 0, '{"replies": [{"type": "text", "text": "in a person''s name"}], "ordered_by": "user-7"}')

-- bot: function
SELECT loquat.record_result('{event}', 0, '{"replies": [{"type": "template"}]}')
