"""Goes on after its answer: tasks, timers, threads, signals without end."""
import asyncio
import signal
import threading

from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    for _ in range(1000):
        asyncio.get_running_loop().call_soon(again)
    ctx.reply_text("answered")


def again():
    asyncio.get_running_loop().call_soon(again)
