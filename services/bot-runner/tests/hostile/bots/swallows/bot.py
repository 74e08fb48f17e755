"""Swallows every cancellation."""
import asyncio

from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    while True:
        try:
            await asyncio.sleep(60)
        except BaseException:
            pass
