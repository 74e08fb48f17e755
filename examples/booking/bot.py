"""Books tables: a day and a number of people by question, a free time from a list. One table an hour, which the table's UNIQUE keeps."""

from datetime import date, timedelta
from zoneinfo import ZoneInfo

from loquat import AskAgain, Bot, Context, Timer

bot = Bot()
bot.needs("bookings", ["id", "contact_id", "day", "hour", "people"])  # made by schema.sql; without it a deployment is refused

ZONE = ZoneInfo("Europe/Berlin")
HOURS = (18, 19, 20, 21)
AHEAD = timedelta(days=60)
PATIENCE = timedelta(minutes=30)
MENU = [("book", "Book a table"), ("mine", "My bookings")]
STOP, STOPPED = ["stop", "cancel"], "Never mind. Write 'book' to begin anew."
PEOPLE = [("2", "Two"), ("4", "Four"), ("6", "Six")]


def today(ctx: Context) -> date:
    return ctx.now.astimezone(ZONE).date()


@bot.state("unstructured")  # in which every conversation opens
async def greet(ctx: Context) -> None:
    ctx.reply_buttons(f"Hello {ctx.contact.name or 'there'}! What can I do for you?", MENU)


@bot.button("book")
@bot.text("book", "book a table")
async def book(ctx: Context) -> None:
    def bookable(text: str) -> date:
        try:
            day = date.fromisoformat(text.strip())
        except ValueError:
            raise AskAgain("Please write the day like 2026-12-31.") from None
        if not today(ctx) < day <= today(ctx) + AHEAD:
            raise AskAgain(f"We take bookings from tomorrow on, {AHEAD.days} days ahead. Which day?")
        return day

    # Each answer calls this handler again from its top. So what has effects outside the database belongs behind the last question, and a
    # timer, too: what is set before a question is undone until the handler ends.
    day = await ctx.ask("Which day? Please write it like 2026-12-31.", key="day", validate=bookable, cancel=STOP, no_answer=STOPPED)
    people = await ctx.ask("How many are you?", key="people", choices=PEOPLE, validate=int, cancel=STOP, no_answer=STOPPED)
    if await show_free_times(ctx, day, people):
        await ctx.timers.set("no-answer", after=PATIENCE, data={"day": f"{day}", "people": people}, until_answer=True)


async def show_free_times(ctx: Context, day: date, people: int) -> bool:
    """Whether there are any."""
    taken = {row["hour"] for row in await ctx.db.fetch("SELECT hour FROM bookings WHERE day = $1", day)}
    free = [hour for hour in HOURS if hour not in taken]
    if not free:
        ctx.reply_text(f"We are full on {day:%d %B}. Write 'book' for another day.")
        return False
    # A row's id has all that is needed when it is picked: so lists work however late.
    ctx.reply_list(f"On {day:%d %B} we have:", "Times", [(f"slot:{day}/{hour}/{people}", f"{hour}:00") for hour in free])
    return True


@bot.on_timer("no-answer")
async def remind(ctx: Context) -> None:
    assert isinstance(ctx.event, Timer)
    ctx.reply_text("Are you still there? Nothing is booked yet.")
    await show_free_times(ctx, date.fromisoformat(ctx.event.data["day"]), ctx.event.data["people"])


@bot.row(prefix="slot:")
async def choose(ctx: Context, slot: str) -> None:
    on, at, count = slot.split("/")
    day, hour, people = date.fromisoformat(on), int(at), int(count)
    if day <= today(ctx):
        ctx.reply_text("That list is too old. Write 'book' for another day.")
        return
    booking = await ctx.db.fetchval(
        "INSERT INTO bookings (contact_id, day, hour, people) VALUES ($1, $2, $3, $4) ON CONFLICT (day, hour) DO NOTHING RETURNING id",
        ctx.contact.id,
        day,
        hour,
        people,
    )
    if booking is None:
        ctx.reply_text(f"{hour}:00 is taken by now.")
        await show_free_times(ctx, day, people)
    else:
        ctx.reply_buttons(f"Booked: {day:%d %B}, {hour}:00, for {people}. See you!", [(f"cancel:{booking}", "Cancel it")])


@bot.button("mine")
async def mine(ctx: Context) -> None:
    rows = await ctx.db.fetch(
        "SELECT day, hour, people FROM bookings WHERE contact_id = $1 AND day >= $2 ORDER BY day, hour LIMIT 20", ctx.contact.id, today(ctx)
    )
    ctx.reply_text("\n".join(f"{row['day']:%d %B}, {row['hour']}:00, for {row['people']}" for row in rows) or "You have no bookings.")


@bot.button(prefix="cancel:")
async def cancel(ctx: Context, booking: str) -> None:
    done = await ctx.db.execute(
        "DELETE FROM bookings WHERE id = $1 AND contact_id = $2 AND day >= $3", int(booking), ctx.contact.id, today(ctx)
    )
    ctx.reply_text("Your booking is cancelled." if done == "DELETE 1" else "There is no such booking any more.")
