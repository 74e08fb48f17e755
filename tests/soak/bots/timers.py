"""Each message sets a timer of its own, which says and writes it again."""

from datetime import timedelta

from loquat import Bot

bot = Bot()
NAMES = [f"t{n}" for n in range(50)]  # as many as a conversation may have


@bot.fallback
async def remember(ctx):
    number = int(ctx.event.text.rpartition(":")[2])
    await ctx.db.execute("INSERT INTO heard (said) VALUES ($1)", ctx.event.text)
    await ctx.timers.set(NAMES[number % len(NAMES)], after=timedelta(seconds=1 + number % 3), data=ctx.event.text)
    ctx.reply_text(f"later {ctx.event.text}")


async def due(ctx):
    await ctx.db.execute("INSERT INTO heard (said) VALUES ($1)", f"due {ctx.event.data}")
    ctx.reply_text(f"due {ctx.event.data}")


for name in NAMES:
    bot.on_timer(name)(due)
