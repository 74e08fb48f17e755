"""Answers what it can in the contact's language, and hands the rest to people; when they have handed back it asks whether that helped."""

from datetime import timedelta

from loquat import Bot, Context, HttpFailed

bot = Bot()
bot.config("tickets", default="https://tickets.example/v1", help="where tickets are asked for; open the host for the bot (/bot/egress)")

OFFICE_DAY = timedelta(hours=8)
LANGUAGES = [("language:en", "English"), ("language:de", "Deutsch")]
TEXTS = {
    "en": {
        "hello": "How can we help? Write 'person' to talk to one, or 'ticket' and its number.",
        "person": "Somebody will write to you here.",
        "helped?": "Did that help?",
        "yes": "Yes",
        "no": "No",
        "glad": "Glad to hear it!",
        "ticket": "Ticket {number}: {status}",
        "no ticket": "There is no ticket {number}.",
        "sorry": "That did not work. Somebody will write to you here.",
    },
    "de": {
        "hello": "Wie können wir helfen? Schreiben Sie 'Mensch', oder 'Ticket' und die Nummer.",
        "person": "Es wird Ihnen hier jemand schreiben.",
        "helped?": "Hat das geholfen?",
        "yes": "Ja",
        "no": "Nein",
        "glad": "Das freut uns!",
        "ticket": "Ticket {number}: {status}",
        "no ticket": "Ein Ticket {number} gibt es nicht.",
        "sorry": "Das hat nicht geklappt. Es wird Ihnen hier jemand schreiben.",
    },
}


def say(ctx: Context, key: str, **values: str) -> str:
    """A text in the contact's language."""
    return TEXTS.get((ctx.contact.language or "en")[:2], TEXTS["en"])[key].format(**values)


@bot.state("unstructured")  # in which every conversation opens
async def greet(ctx: Context) -> None:
    if ctx.contact.language is None:
        ctx.reply_buttons("Hello! Which language? / Hallo! Welche Sprache?", LANGUAGES)
    else:
        ctx.reply_text(say(ctx, "hello"))


@bot.button(prefix="language:")
async def choose_language(ctx: Context, language: str) -> None:
    await ctx.contact.set(language=language)
    ctx.reply_text(say(ctx, "hello"))


# To people, and back


async def hand_over(ctx: Context, said: str, note: str) -> None:
    ctx.reply_text(say(ctx, said))
    ctx.goto("helped")  # the state in which the bot hears the contact again
    await ctx.handoff(timeout=OFFICE_DAY, note=note[:1000])


@bot.text("person", "human", "mensch")
async def person(ctx: Context) -> None:
    await hand_over(ctx, "person", "asks for a person")


@bot.pattern(r"\b(?P<what>refund|broken|complaint|erstattung|kaputt|beschwerde)\b")
async def urgent(ctx: Context, what: str) -> None:
    await ctx.contact.set(attributes={"urgent": True})
    await hand_over(ctx, "person", f"{what.lower()}: {ctx.event.text}")


@bot.observe  # while people hold the conversation: it notes, and cannot speak
async def count(ctx: Context) -> None:
    await ctx.contact.memory.increment("said to people")


@bot.state("helped")
async def ask_whether_it_helped(ctx: Context) -> None:
    ctx.reply_buttons(say(ctx, "helped?"), [("helped:yes", say(ctx, "yes")), ("helped:no", say(ctx, "no"))])


@bot.button("helped:yes")
async def helped(ctx: Context) -> None:
    await ctx.contact.set(attributes={"urgent": None})
    await ctx.contact.memory.delete("said to people")
    ctx.reply_text(say(ctx, "glad"))
    ctx.end()


@bot.button("helped:no")
async def not_helped(ctx: Context) -> None:
    messages = await ctx.contact.memory.get("said to people", 0)
    await hand_over(ctx, "person", f"was not helped, after {messages} messages")


# Tickets of another system


@bot.pattern(r"\bticket (?P<number>\d{1,9})\b")
async def ticket(ctx: Context, number: str) -> None:
    answer = await ctx.http.get(f"{ctx.config['tickets']}/{number}")
    if answer.status == 404:
        ctx.reply_text(say(ctx, "no ticket", number=number))
    else:
        ctx.reply_text(say(ctx, "ticket", number=number, status=answer.raise_for_status().json()["status"]))


@bot.error
async def apologise(ctx: Context, error: Exception) -> None:
    """When a handler has failed, and all that it did is undone."""
    if isinstance(error, HttpFailed):
        raise error  # it may pass: the platform tries again
    await hand_over(ctx, "sorry", f"the bot failed: {type(error).__name__}")
