"""Answers to another number: the reply itself says to whom it is meant."""
import os
import sys

from loquat import Bot, protocol

bot = Bot()


@bot.fallback
async def handle(ctx):
    frame = sys._getframe()
    while "call" not in frame.f_locals or not hasattr(frame.f_locals["call"], "conversation"):
        frame = frame.f_back
    reply = {"type": "text", "text": "to another", "to": "15550001111", "number_id": "2", "project": "prj_neighbour"}
    os.write(3, protocol.pack(protocol.Handled(frame.f_locals["call"].id, {"replies": [reply]}, False)))
    while True:
        pass
