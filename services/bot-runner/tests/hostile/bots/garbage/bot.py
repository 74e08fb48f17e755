"""Writes on the runner's socket what is no frame."""
import os

from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    os.write(3, b"\x00\x00\x00\x10" + b"\xc1" * 16)
    while True:
        pass
