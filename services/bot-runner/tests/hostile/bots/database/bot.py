"""Asks its database for what is not its own. `ctx.db` works: that is the way it has."""
import asyncpg

from attempts import attempt, hostile

bot = hostile()


async def connected(aim, **more):
    asked = {"host": "127.0.0.1", "port": aim.postgres, "user": aim.user, "database": aim.database, "timeout": 5, **more}
    connection = await asyncpg.connect(**asked)
    try:
        return await connection.fetchval("SELECT current_user || ' in ' || current_database()")
    finally:
        await connection.close()


attempt("another project's database", bridge="28000|28P01")(lambda aim: connected(aim, user=aim.other_user, database=aim.other_database))
attempt("the superuser", bridge="28000|28P01")(lambda aim: connected(aim, user="postgres"))
attempt("a service of the platform", bridge="28000|28P01")(lambda aim: connected(aim, user="loquat_bot_runner"))
attempt("its own editor", bridge="28000|28P01")(lambda aim: connected(aim, user=aim.user.replace("_bot", "_editor")))
attempt("the list of databases", bridge="28000|28P01")(lambda aim: connected(aim, database="postgres"))


async def said(aim, query, *arguments):
    try:
        return await aim.ctx.db.fetchval(query, *arguments)
    finally:
        await aim.ctx.db.execute("ROLLBACK")
        await aim.ctx.db.execute("BEGIN")


attempt("a result for an event that is not open", database="LQ003")(lambda aim: said(aim, "SELECT loquat.record_result('00000000-0000-4000-8000-000000000001', 0, '{\"replies\": []}'::text::jsonb)"))
attempt("a result for a neighbour's event", database="LQ003")(lambda aim: said(aim, "SELECT loquat.record_result($1, 0, '{\"replies\": []}'::text::jsonb)", aim.other_event))
attempt("a message of its own making", database="42501")(lambda aim: said(aim, "INSERT INTO messages DEFAULT VALUES"))
attempt("the outbox", database="42501")(lambda aim: said(aim, "INSERT INTO loquat.outbox DEFAULT VALUES"))
attempt("a message of history", database="42501")(lambda aim: said(aim, "UPDATE messages SET text = 'other'"))
attempt("a program on the server", database="42501")(lambda aim: said(aim, "COPY (SELECT 1) TO PROGRAM 'true'"))
attempt("a file on the server", database="42501")(lambda aim: said(aim, "SELECT pg_read_file('/etc/passwd')"))
attempt("a session of somebody else", database="nothing|42501")(lambda aim: _ends(aim))


async def _ends(aim):
    found = await said(aim, "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> current_user AND datname <> current_database() LIMIT 3) AS x")
    return "nothing" if found == 0 else found


@attempt("a hundred connections", bridge="53300|28P01")
async def many(aim):
    opened = []
    try:
        for _ in range(100):
            opened.append(await asyncpg.connect(host="127.0.0.1", port=aim.postgres, user=aim.user, database=aim.database, timeout=5))
    finally:
        for one in opened:
            one.terminate()
    return len(opened)
