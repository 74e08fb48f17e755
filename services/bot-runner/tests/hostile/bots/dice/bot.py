"""Throws dice: whoever was forked from the same process must not throw the same."""
import os
import random
import secrets
import ssl
import tempfile
import uuid

from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    for throw in (random.random(), random.SystemRandom().random(), secrets.token_hex(8), ssl.RAND_bytes(8).hex(), uuid.uuid4().hex, os.urandom(8).hex(), next(tempfile._get_candidate_names())):
        ctx.reply_text(str(throw))
