"""Takes memory that is no data of its own: mapped and shared."""
import mmap

from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    kept = []
    while True:
        one = mmap.mmap(-1, 16 << 20)
        one.write(b"x" * (16 << 20))
        kept.append(one)
