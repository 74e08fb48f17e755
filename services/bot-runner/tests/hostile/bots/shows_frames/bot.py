"""Raises from the depth of the platform's own code, with all it can see in the text of the traceback."""
import asyncio

from loquat import Bot

bot = Bot()


class Odd(str):
    def __str__(self):
        raise RuntimeError("deep") from ValueError("deeper")


@bot.fallback
async def handle(ctx):
    try:
        await asyncio.gather(ctx.db.fetchval(Odd("x"), object()), asyncio.wait_for(asyncio.sleep(5), 0.01))
    except BaseException as error:
        raise ExceptionGroup("all of it", [error, KeyError("drawer")]) from error
