-- bot without limits: limit or reaper
SET work_mem = '6GB'; SELECT count(*) FROM (SELECT g, repeat(md5(g::text), 8) AS t FROM generate_series(1, 12000000) AS g ORDER BY 2 OFFSET 1) AS s

-- bot without limits: limit or reaper
SELECT array_agg(repeat('x', 100000000)) FROM generate_series(1, 100)

-- bot: limit or reaper
SET work_mem = '64kB'; SELECT count(*) FROM (SELECT repeat(md5(g::text), 40) AS t FROM generate_series(1, 3000000) AS g ORDER BY 1 OFFSET 1) AS s

-- bot: limit or reaper
BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT repeat(md5(g::text), 40) FROM generate_series(1, 3000000) AS g; COMMIT

-- bot without limits: limit or reaper or harmless
SELECT repeat('a', 40) ~ '^((a|a)*)*b\1$', repeat('ab', 20000) ~ '(.+)+(.+)+\1\2$'

-- bot without limits: limit or reaper or harmless
SELECT length((repeat('7', 65000)::numeric * repeat('3', 65000)::numeric)::text)

-- bot without limits: limit or reaper or harmless
SELECT sqrt((repeat('7', 130000) || '.' || repeat('3', 16000))::numeric)

-- bot without limits: limit or reaper or harmless
SELECT ln((repeat('7', 3000) || '.' || repeat('3', 1000))::numeric), exp(2000.1::numeric(1000, 900))

-- bot: limit or reaper
CREATE FUNCTION deep(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN deep($1 + 1); END $$; SELECT deep(1)

-- bot: limit or reaper
CREATE SEQUENCE s; SELECT setval('s', 9223372036854775807); SELECT nextval('s')

-- bot: harmless
SET max_parallel_workers_per_gather = 1000; SET debug_parallel_query = on; SELECT count(*) FROM pg_class

-- bot: limit or reaper
SELECT repeat('x', 1073741824)
