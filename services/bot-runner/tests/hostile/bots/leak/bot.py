"""Takes memory until there is none, and does not look at what is said to it."""
from loquat import Bot

bot = Bot()
KEPT = []


@bot.fallback
async def handle(ctx):
    while True:
        KEPT.append(bytearray(8 << 20))
