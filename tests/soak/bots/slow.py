"""Takes its time inside the transaction: most of what is killed is killed in the middle."""

import asyncio

from loquat import Bot

bot = Bot()


@bot.fallback
async def ponder(ctx):
    await ctx.db.execute("INSERT INTO heard (said) VALUES ($1)", ctx.event.text)
    await asyncio.sleep(1.0)
    ctx.reply_text(f"well, {ctx.event.text}")
