"""Says that it is ready once more, with other states."""
import os

from loquat import Bot, protocol

bot = Bot()


@bot.fallback
async def handle(ctx):
    os.write(3, protocol.pack(protocol.Ready(["forged"], [])))
    while True:
        pass
