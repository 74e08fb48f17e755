"""Answers other calls than its own: those that others of its project wait for are its own word, all others are nothing."""
import os

import msgspec
from loquat import Bot, protocol

bot = Bot()


@bot.fallback
async def handle(ctx):
    for number in (0, -1, 10**6, 2**62):
        os.write(3, protocol.pack(protocol.Handled(number, {"replies": [{"type": "text", "text": "forged"}]}, True)))
        os.write(3, protocol.pack(protocol.Failed(number, "memory", "forged")))
        os.write(3, protocol.pack(protocol.Logged(number, "error", "forged line")))
    ctx.reply_text("answered")
