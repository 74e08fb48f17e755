"""Announces a frame of four gigabytes, and begins to send it."""
import os

from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    os.write(3, b"\xff\xff\xff\xff")
    while True:
        os.write(3, b"x" * 65536)
