"""Fails at every second message the first time it sees it. What it has seen is written outside of the transaction, so it knows wherever it runs."""

from loquat import Bot

bot = Bot()


@bot.fallback
async def try_again(ctx):
    await ctx.db.execute("INSERT INTO heard (said) VALUES ($1)", ctx.event.text)
    await ctx.pool.execute("INSERT INTO tried (said) VALUES ($1)", ctx.event.text)
    tried = await ctx.pool.fetchval("SELECT count(*) FROM tried WHERE said = $1", ctx.event.text)
    if tried == 1 and int(ctx.event.text.rpartition(":")[2]) % 2:
        raise RuntimeError("not the first time")
    ctx.reply_text(f"at last {ctx.event.text}")
