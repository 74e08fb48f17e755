"""Never gives the processor back."""
from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    while True:
        pass
