"""A row of its own for each message; nothing unique on it, so that a second one would stay."""

from loquat import Bot

bot = Bot()


@bot.fallback
async def hear(ctx):
    await ctx.db.execute("INSERT INTO heard (said) VALUES ($1)", ctx.event.text)
    ctx.reply_text(f"heard {ctx.event.text}")
