"""Texts that come close together are one call."""

from loquat import Bot

bot = Bot()


@bot.on_text(burst=1.0)
async def gather(ctx):
    for text in ctx.event.texts:
        await ctx.db.execute("INSERT INTO heard (said) VALUES ($1)", text)
    ctx.reply_text("|".join(ctx.event.texts))
