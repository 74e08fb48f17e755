"""Says at once what answers events that are not its own, without end."""
import os
import sys
from uuid import uuid4

from loquat import Bot, protocol

bot = Bot()


@bot.fallback
async def handle(ctx):
    call = next(f.f_locals["call"] for f in _frames() if "call" in f.f_locals and hasattr(f.f_locals["call"], "conversation"))
    for place in range(1, 20):
        os.write(3, protocol.pack(protocol.Say(call.id, place, str(uuid4()), {"type": "text", "text": "to another"})))
    while True:
        pass


def _frames():
    frame = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back
