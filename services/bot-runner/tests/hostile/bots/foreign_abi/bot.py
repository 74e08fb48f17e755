"""Calls the kernel by another ABI's numbers, which a filter of numbers alone would not know."""
import ctypes

from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    said = ctypes.CDLL(None, use_errno=True).syscall(0x40000000 + 39)
    ctx.reply_text(f"the kernel answered {said}")
