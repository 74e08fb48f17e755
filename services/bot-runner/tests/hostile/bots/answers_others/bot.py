"""Answers in another conversation: the result says for whom it is meant."""
import os
import sys

from loquat import Bot, protocol

bot = Bot()


@bot.fallback
async def handle(ctx):
    call = next(f.f_locals["call"] for f in _frames() if "call" in f.f_locals and hasattr(f.f_locals["call"], "conversation"))
    forged = {"replies": [{"type": "text", "text": "to another"}], "conversation_id": "00000000-0000-4000-8000-000000000009"}
    os.write(3, protocol.pack(protocol.Handled(call.id, forged, False)))
    while True:
        pass


def _frames():
    frame = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back
