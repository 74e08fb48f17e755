"""A bot that writes a row of its own and says it back, twice, so that order shows."""

from loquat import Bot

bot = Bot()


@bot.fallback
async def echo(ctx):
    await ctx.db.execute("CREATE TABLE IF NOT EXISTS heard (event uuid PRIMARY KEY, who text NOT NULL, said text)")
    await ctx.db.execute("INSERT INTO heard (event, who, said) VALUES ($1, $2, $3)", ctx.event.id, "echo", ctx.event.text)
    ctx.reply_text(f"one: {ctx.event.text}")
    ctx.reply_text(f"two: {ctx.event.text}")
