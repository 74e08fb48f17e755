"""Tells how orders stand. The table is the shop's: people or their software fill it; the bot reads it, and tells who waits too long."""

from datetime import date, timedelta
from zoneinfo import ZoneInfo

from loquat import Bot, Context, ScheduleContext

bot = Bot()
bot.needs("orders", ["number", "contact_id", "item", "status", "due_on", "told_late"])
bot.config("shop", default="The Tea Shop", help="how the bot calls the shop")
bot.config("questions_an_hour", default=20, help="of one contact; more are not answered from the table")

ZONE = "Europe/Berlin"
STATUS = {"open": "is being packed", "sent": "is on its way", "delivered": "was delivered"}
COUNTS = """
    SELECT count(*) FILTER (WHERE status = 'open') AS open, count(*) FILTER (WHERE status = 'sent') AS sent,
           count(*) FILTER (WHERE status <> 'delivered' AND due_on < $1) AS late
    FROM orders"""
# At most 500, as many messages as one call may send. What is left over follows with the next call.
LATE = """
    UPDATE orders SET told_late = true
    WHERE number IN (
        SELECT number FROM orders WHERE status <> 'delivered' AND due_on < $1 AND NOT told_late ORDER BY due_on, number LIMIT 500)
    RETURNING number, contact_id, item"""


def today(ctx: Context | ScheduleContext) -> date:
    return ctx.now.astimezone(ZoneInfo(ZONE)).date()


@bot.state("unstructured")  # in which every conversation opens
async def greet(ctx: Context) -> None:
    ctx.reply_text(f"This is {ctx.config['shop']}. Write /order and its number, such as '/order 17', or /orders for all that are open.")


@bot.command("order")
async def order(ctx: Context, number: str) -> None:
    if not (number.isdecimal() and len(number) < 10):
        ctx.reply_text("Which one? Write it like '/order 17'.")
        return
    if await ctx.contact.memory.increment("questions", ttl=timedelta(hours=1)) > ctx.config["questions_an_hour"]:
        ctx.reply_text("That is a lot of questions. Please come back in an hour.")
        return
    # Only the contact's own: who guesses a number learns nothing.
    found = await ctx.db.fetchrow("SELECT * FROM orders WHERE number = $1 AND contact_id = $2", int(number), ctx.contact.id)
    if found is None:
        ctx.reply_text(f"You have no order {number} with us.")
        return
    due = "" if found["status"] == "delivered" else f" It is due on {found['due_on']:%d %B}."
    ctx.reply_text(f"Order {number} ({found['item']}) {STATUS[found['status']]}.{due}")


@bot.command("orders")
async def orders(ctx: Context) -> None:
    rows = await ctx.db.fetch(
        "SELECT number, item, status FROM orders WHERE contact_id = $1 AND status <> 'delivered' ORDER BY number LIMIT 20", ctx.contact.id
    )
    ctx.reply_text("\n".join(f"{row['number']}: {row['item']} {STATUS[row['status']]}" for row in rows) or "No order of yours is open.")


@bot.command("summary")
async def summary(ctx: Context, code: str) -> None:
    """Who knows the code gets the daily summary; `/summary` alone ends it."""
    guesses = await ctx.contact.memory.increment("guesses", ttl=timedelta(days=1))
    wanted = code != "" and code == ctx.secrets.get("summary_code") and guesses <= 5
    await ctx.contact.set(attributes={"summary": True if wanted else None})  # None takes it away
    ctx.reply_text("You get the summary every evening." if wanted else "You get no summary.")


@bot.schedule("0 18 * * *", tz=ZONE, catch_up="skip")  # yesterday's summary is of no use
async def daily_summary(ctx: ScheduleContext) -> None:
    counts = await ctx.db.fetchrow(COUNTS, today(ctx))
    assert counts is not None
    told = await ctx.memory.get("told late", 0)
    text = f"{ctx.config['shop']}: {counts['open']} open, {counts['sent']} sent, {counts['late']} late; {told} told that it is late so far."
    for contact in await ctx.db.fetch("SELECT id FROM contacts WHERE attributes->'summary' = 'true' LIMIT 500"):
        await ctx.send(contact["id"], text)


@bot.schedule("0 9 * * 1-5", tz=ZONE)  # missed while the platform stood still, it follows once
async def late_orders(ctx: ScheduleContext) -> None:
    """Each is told once: the mark and the message become true together."""
    late = await ctx.db.fetch(LATE, today(ctx))
    for row in late:
        await ctx.send(row["contact_id"], f"Your order {row['number']} ({row['item']}) is late. We are sorry, and we are on it.")
    if late:
        await ctx.memory.increment("told late", len(late))
