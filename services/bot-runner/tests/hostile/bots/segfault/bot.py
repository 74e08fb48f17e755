"""Reads where nothing is."""
import ctypes

from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    ctypes.string_at(1)
