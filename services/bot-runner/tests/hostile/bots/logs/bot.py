"""Logs without end."""
from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    while True:
        ctx.log.info("x" * 4000)
