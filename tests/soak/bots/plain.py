"""Two replies to each message, no database."""

from loquat import Bot

bot = Bot()


@bot.fallback
async def echo(ctx):
    ctx.reply_text(f"one {ctx.event.text}")
    ctx.reply_text(f"two {ctx.event.text}")
