"""The starter bot: a greeting, a way to support, and a booking in four questions, kept in the bot's own table."""

from loquat import Bot, Context

bot = Bot()

MENU = [("book", "Book"), ("support", "Talk to us")]
QUESTIONS = {
    "name": "What is your name?",
    "service": "Which service would you like?",
    "date": "On which day?",
    "phone": "At which phone number can we reach you?",
}


@bot.state("unstructured")
async def unstructured(ctx: Context) -> None:
    match ctx.event.button_id or (ctx.event.text or "").strip().lower():
        case "book" | "booking" | "appointment":
            await begin_booking(ctx)
        case "support" | "help" | "human":
            ctx.reply_text("Of course. Tell us what it is about; write 'menu' to come back.")
            ctx.goto("support")
        case _:
            name = f" {ctx.contact.name}" if ctx.contact.name else ""
            ctx.reply_buttons(f"Hello{name}! What can I do for you?", MENU)


@bot.state("support")
async def support(ctx: Context) -> None:
    if (ctx.event.text or "").strip().lower() == "menu":
        ctx.reply_buttons("Back again. What can I do for you?", MENU)
        ctx.goto("unstructured")
    else:
        ctx.reply_text("Thank you. Somebody will read this and answer here.")


@bot.state("collect_info")
async def collect_info(ctx: Context) -> None:
    answer = (ctx.event.text or "").strip()
    if answer.lower() in {"cancel", "stop", "menu"}:
        await ctx.db.execute("DELETE FROM bookings WHERE contact_id = $1 AND NOT complete", ctx.contact.id)
        ctx.reply_buttons("The booking is cancelled. Anything else?", MENU)
        ctx.goto("unstructured")
        return
    booking = await ctx.db.fetchrow("SELECT * FROM bookings WHERE contact_id = $1 AND NOT complete", ctx.contact.id)
    if booking is None:
        await begin_booking(ctx)
        return
    asked = next(field for field in QUESTIONS if booking[field] is None)
    if not answer:
        ctx.reply_text(f"Please answer with a text. {QUESTIONS[asked]}")
        return
    await answer_question(ctx, booking["id"], asked, answer[:200])


async def begin_booking(ctx: Context) -> None:
    await ctx.db.execute("""
        CREATE TABLE IF NOT EXISTS bookings (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            contact_id uuid NOT NULL,
            name text, service text, date text, phone text,
            complete boolean NOT NULL DEFAULT false,
            created_at timestamptz NOT NULL DEFAULT now())""")
    await ctx.db.execute("DELETE FROM bookings WHERE contact_id = $1 AND NOT complete", ctx.contact.id)
    await ctx.db.execute("INSERT INTO bookings (contact_id) VALUES ($1)", ctx.contact.id)
    ctx.reply_text(f"Let us make a booking; write 'cancel' to stop. {QUESTIONS['name']}")
    ctx.goto("collect_info")


async def answer_question(ctx: Context, booking: int, asked: str, answer: str) -> None:
    # `asked` is one of the names above, never what somebody wrote.
    await ctx.db.execute(f"UPDATE bookings SET {asked} = $2 WHERE id = $1", booking, answer)
    left = list(QUESTIONS)[list(QUESTIONS).index(asked) + 1 :]
    if left:
        ctx.reply_text(QUESTIONS[left[0]])
        return
    row = await ctx.db.fetchrow("UPDATE bookings SET complete = true WHERE id = $1 RETURNING *", booking)
    ctx.reply_text(f"Booked: {row['service']} for {row['name']} on {row['date']}. We call {row['phone']} if anything changes.")
    ctx.goto("unstructured")
