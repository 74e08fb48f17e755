"""Counts in the bot's memory and in the contact's, and says the contact's count: one that is lost or doubled shows in every reply after it."""

from loquat import Bot

bot = Bot()


@bot.fallback
async def count(ctx):
    await ctx.memory.increment("total")
    mine = await ctx.contact.memory.increment("mine")
    ctx.reply_text(f"{mine} {ctx.event.text}")
