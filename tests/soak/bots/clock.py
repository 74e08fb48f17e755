"""Writes a row every minute, and one for each message."""

from loquat import Bot

bot = Bot()


@bot.schedule("* * * * *", catch_up="all")
async def tick(ctx):
    await ctx.db.execute("INSERT INTO ticks (due_at) VALUES ($1)", ctx.event.due_at)


@bot.fallback
async def hear(ctx):
    await ctx.db.execute("INSERT INTO heard (said) VALUES ($1)", ctx.event.text)
    ctx.reply_text(f"heard {ctx.event.text}")
