-- bot without limits: limit or reaper
SELECT count(*) FROM generate_series(1, 100000000000)

-- bot without limits: limit or reaper
WITH RECURSIVE b(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM b) SELECT count(*) FROM b

-- bot without limits: reaper
DO $$ BEGIN LOOP NULL; END LOOP; END $$

-- bot without limits: reaper
DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(100); EXCEPTION WHEN OTHERS OR query_canceled THEN NULL; END; END LOOP; END $$

-- bot without limits: reaper
SELECT count(*) FROM pg_class a, pg_class b, pg_class c, pg_class d

-- bot without limits: reaper
SELECT pg_sleep(1000)

-- bot: limit or reaper
SELECT pg_sleep(1000)

-- bot without limits: limit or reaper
DO $$ BEGIN FOR i IN 1..400000 LOOP EXECUTE format('CREATE TABLE many_%s (a int)', i); END LOOP; END $$
