"""A frame that is nested deeper than a stack is high."""
import os
import struct

from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    body = b"\x83\xa4type\xa7handled\xa2id\x01\xa6result\x81\xa1x" + b"\x91" * 500_000 + b"\x90"
    frame = struct.pack(">I", len(body)) + body
    while frame:
        frame = frame[max(0, _write(frame)) :]
    while True:
        pass


def _write(frame):
    try:
        return os.write(3, frame)
    except BlockingIOError:
        return 0
