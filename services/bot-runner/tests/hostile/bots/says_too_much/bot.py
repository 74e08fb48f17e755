"""Ten thousand replies."""
from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    for n in range(10_000):
        ctx.reply_text("x" * 4000)
