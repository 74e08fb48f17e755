"""Speaks as the runner does."""
import os

from loquat import Bot, protocol

bot = Bot()


@bot.fallback
async def handle(ctx):
    os.write(3, protocol.pack(protocol.Start("/", "postgresql://x")))
    while True:
        pass
