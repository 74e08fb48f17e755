"""Every second message answers a question."""

from loquat import Bot

bot = Bot()


@bot.fallback
async def pair(ctx):
    first = ctx.event.text
    await ctx.db.execute("INSERT INTO heard (said) VALUES ($1)", first)
    answer = await ctx.ask(f"and after {first}")
    await ctx.db.execute("INSERT INTO heard (said) VALUES ($1)", answer)
    ctx.reply_text(f"{first} then {answer}")
