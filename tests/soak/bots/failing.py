"""Fails at every third message for good; nothing of it may stay."""

from loquat import Bot

bot = Bot()


@bot.fallback
async def refuse(ctx):
    await ctx.db.execute("INSERT INTO heard (said) VALUES ($1)", ctx.event.text)
    ctx.reply_text(f"yes {ctx.event.text}")
    if int(ctx.event.text.rpartition(":")[2]) % 3 == 2:
        raise ValueError("never")
