"""A bot with every sort of handler, written as its author would: that it passes the strict type checker is part of what is tested."""

from __future__ import annotations

import re

from loquat import Audio, Bot, Context, Image, Location, Media, Message, Next, Text, replies

MENU = replies.buttons("What can I do?", [("book", "Book"), ("slot:9", "At nine"), ("slot:day:2", "Tomorrow")])
bot = Bot()


@bot.middleware
async def outer(ctx: Context, call_next: Next) -> None:
    ctx.log.info("outer in")
    await call_next()
    ctx.log.info("outer out")


@bot.middleware
async def inner(ctx: Context, call_next: Next) -> None:
    if ctx.event.text == "silence":
        return
    ctx.log.info("inner in")
    await call_next()


@bot.state("unstructured")
async def start(ctx: Context) -> None:
    ctx.reply(MENU)


@bot.state("collect")
async def collect(ctx: Context) -> None:
    ctx.reply_text(f"collected {ctx.event.text}")


@bot.on_enter("collect")
async def ask(ctx: Context) -> None:
    ctx.reply_text("Your name?")


@bot.command("help", "info")
async def help_(ctx: Context, about: str) -> None:
    ctx.reply_text(f"help about {about or 'everything'}")


@bot.button("book")
async def book(ctx: Context) -> None:
    ctx.goto("collect")


@bot.button(prefix="slot:")
async def slot(ctx: Context, rest: str) -> None:
    ctx.reply_text(f"slot {rest}")


@bot.button(prefix="slot:day:")
async def day(ctx: Context, rest: str) -> None:
    ctx.reply_text(f"day {rest}")


@bot.row("large", "small")
async def size(ctx: Context, chosen: str) -> None:
    ctx.reply_text(f"size {chosen}")


@bot.text("sizes")
async def sizes(ctx: Context) -> None:
    ctx.reply_list("Which?", "Sizes", [("small", "Small"), ("large", "Large", "For two")])


@bot.text("cancel", "stop it", state=("collect", "other"))
async def cancel(ctx: Context) -> None:
    ctx.reply_text("cancelled")
    ctx.end()


@bot.pattern(r"order (?P<number>\d+)( for (?P<who>\w+))?")
async def order(ctx: Context, number: str, who: str | None) -> None:
    ctx.reply_text(f"order {number} of {who}")


@bot.pattern(re.compile("^[A-Z]{3}$"), state="collect")
async def code(ctx: Context) -> None:
    ctx.reply_text("a code")


@bot.on(Image)
async def picture(ctx: Context, image: Image) -> None:
    ctx.reply_text(f"picture {image.media_id}: {image.caption}")


@bot.on(Media)
async def file(ctx: Context, media: Media) -> None:
    ctx.reply_text(f"file {media.mime_type}")


@bot.on(Media, state="collect")
async def file_here(ctx: Context) -> None:
    ctx.reply_text("no files here")


@bot.on(Audio)
async def sound(ctx: Context) -> None:
    ctx.reply_text("sound")


@bot.on(Location)
async def place(ctx: Context, location: Location) -> None:
    ctx.reply_text(f"at {location.latitude + location.longitude}")


@bot.unknown_state
async def lost(ctx: Context) -> None:
    ctx.reply_text(f"lost in {ctx.state}")
    ctx.goto("unstructured")


@bot.fallback
async def other(ctx: Context) -> None:
    ctx.reply_text(f"{kind(ctx.event)} in {ctx.state}")


@bot.error
async def sorry(ctx: Context, error: Exception) -> None:
    ctx.reply_text(f"Sorry: {type(error).__name__}")


def kind(message: Message) -> str:
    match message:
        case Text(text=text):
            return f"text of {len(text)}"
        case _:
            return message.type
