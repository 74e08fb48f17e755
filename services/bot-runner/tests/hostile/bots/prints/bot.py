"""Prints without end."""
import os

from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    while True:
        os.write(1, b"x" * 65536)
