"""Tries what it must not and takes what it can get; at every fourth message it never ends."""

import os
import signal
import socket

from loquat import Bot

bot = Bot()


def attempts():
    yield lambda: open("/proc/1/environ").read()
    yield lambda: os.kill(1, signal.SIGKILL)
    yield lambda: socket.create_connection(("169.254.169.254", 80), timeout=0.1)
    yield lambda: bytearray(1 << 30)
    yield fill


def fill():
    try:
        with open("/tmp/full", "wb") as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
    finally:
        os.unlink("/tmp/full")


@bot.fallback
async def harm(ctx):
    await ctx.db.execute("INSERT INTO heard (said) VALUES ($1)", ctx.event.text)
    for attempt in attempts():
        try:
            attempt()
        except (OSError, MemoryError) as error:
            print(type(error).__name__)
    ctx.reply_text(f"here {ctx.event.text}")
    while int(ctx.event.text.rpartition(":")[2]) % 4 == 3:
        pass
