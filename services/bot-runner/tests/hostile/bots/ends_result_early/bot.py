"""Closes the socket on which it is heard, and goes on."""
import os

from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    os.close(3)
    while True:
        pass
