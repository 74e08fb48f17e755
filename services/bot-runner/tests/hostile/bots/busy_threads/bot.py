"""Busy in many threads, after it has answered."""
import threading

from loquat import Bot

bot = Bot()


def spin():
    while True:
        pass


@bot.fallback
async def handle(ctx):
    for _ in range(8):
        threading.Thread(target=spin, daemon=True).start()
    ctx.reply_text("answered")
