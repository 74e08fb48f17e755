"""A bot with states and buttons, quite unlike the echo: nothing of the one may show at the other."""

from loquat import Bot

bot = Bot()


@bot.state("unstructured")
async def start(ctx):
    ctx.reply_buttons("What shall it be?", [("tea", "Tea"), ("coffee", "Coffee")])
    ctx.goto("chosen")


@bot.state("chosen")
async def chosen(ctx):
    await ctx.db.execute("CREATE TABLE IF NOT EXISTS cups (id bigint GENERATED ALWAYS AS IDENTITY, event uuid UNIQUE, kind text)")
    await ctx.db.execute("INSERT INTO cups (event, kind) VALUES ($1, $2)", ctx.event.id, ctx.event.button_id or ctx.event.text)
    ctx.reply_text(f"One {ctx.event.button_id or ctx.event.text} for you")
    ctx.goto("unstructured")
