"""Never comes back from C, where no Python signal or cancellation is looked at."""
import re

from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    re.match(r"(a+)+$", "a" * 60 + "b")
