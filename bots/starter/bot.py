"""The starter bot: a greeting, a way to people, and bookings in four questions, kept in the bot's own table."""

from asyncpg import Record
from db_services import delete, insert, query, record, update
from loquat import Bot, Context, Text

bot = Bot()

MENU = [("book", "Book"), ("support", "Talk to us")]
QUESTIONS = {
    "name": "What is your name?",
    "service": "Which service would you like?",
    "date": "On which day?",
    "phone": "At which phone number can we reach you?",
}
TABLE = """
    CREATE TABLE IF NOT EXISTS bookings (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        contact_id uuid NOT NULL,
        name text, service text, date text, phone text,
        complete boolean NOT NULL DEFAULT false,
        created_at timestamptz NOT NULL DEFAULT now())"""
LONGEST_ANSWER = 200


@bot.state("unstructured")  # in which every conversation opens
async def greet(ctx: Context) -> None:
    name = f" {ctx.contact.name}" if ctx.contact.name else ""
    ctx.reply_buttons(f"Hello{name}! What can I do for you?", MENU)


@bot.unknown_state  # of an older version of this bot
async def begin_anew(ctx: Context) -> None:
    ctx.goto("unstructured")
    await greet(ctx)


# People


@bot.button("support")
@bot.text("support", "help", "human", state="unstructured")
async def ask_for_support(ctx: Context) -> None:
    ctx.goto("support")


@bot.on_enter("support")
async def welcome(ctx: Context) -> None:
    ctx.reply_text("Of course. Tell us what it is about; write 'menu' to come back.")


@bot.text("menu", state="support")
async def back(ctx: Context) -> None:
    ctx.reply_buttons("Back again. What can I do for you?", MENU)
    ctx.goto("unstructured")


@bot.state("support")
async def support(ctx: Context) -> None:
    ctx.reply_text("Thank you. Somebody will read this and answer here.")


# Bookings


@bot.button("book")
@bot.text("book", "booking", "appointment", state="unstructured")
async def begin_booking(ctx: Context) -> None:
    await ctx.db.execute(TABLE)
    await forget_unfinished(ctx)
    await insert(ctx, "bookings", contact_id=ctx.contact.id)
    ctx.reply_text("Let us make a booking; write 'cancel' to stop.")
    ctx.goto("collect_info")


@bot.on_enter("collect_info")
async def ask(ctx: Context) -> None:
    """Asks for what is missing; when nothing is, the booking is complete."""
    booking = await unfinished(ctx)
    missing = [field for field in QUESTIONS if booking[field] is None]
    if missing:
        ctx.reply_text(QUESTIONS[missing[0]])
        return
    await update(ctx, "bookings", booking["id"], complete=True)
    await record(ctx, bookings=ctx.contact.attributes.get("bookings", 0) + 1)
    what = f"{booking['service']} for {booking['name']} on {booking['date']}"
    ctx.reply_text(f"Booked: {what}. We call {booking['phone']} if anything changes.")
    ctx.goto("unstructured")


@bot.text("cancel", "stop", "menu", state="collect_info")
async def cancel(ctx: Context) -> None:
    await forget_unfinished(ctx)
    ctx.reply_buttons("The booking is cancelled. Anything else?", MENU)
    ctx.goto("unstructured")


@bot.on(Text, state="collect_info")
async def answer(ctx: Context, text: Text) -> None:
    booking = await unfinished(ctx)
    asked = next(field for field in QUESTIONS if booking[field] is None)
    await update(ctx, "bookings", booking["id"], **{asked: text.text.strip()[:LONGEST_ANSWER]})
    ctx.goto("collect_info")


@bot.state("collect_info")  # anything but a text
async def not_a_text(ctx: Context) -> None:
    ctx.reply_text("Please answer with a text.")
    ctx.goto("collect_info")


async def unfinished(ctx: Context) -> Record:
    """The contact's booking that is being made; a new one if somebody has deleted it."""
    begun = await query(ctx, "bookings", contact_id=ctx.contact.id, complete=False)
    return begun[0] if begun else await insert(ctx, "bookings", contact_id=ctx.contact.id)


async def forget_unfinished(ctx: Context) -> None:
    await delete(ctx, "bookings", contact_id=ctx.contact.id, complete=False)
