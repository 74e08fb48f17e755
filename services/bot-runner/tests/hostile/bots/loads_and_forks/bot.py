"""Does its harm on import, before any call."""
import os
import socket

FOUND = []
for harm in (os.fork, lambda: open("/etc/shadow"), lambda: os.kill(1, 9), lambda: socket.create_server(("127.0.0.1", 0)), lambda: os.execv("/bin/sh", ["sh"])):
    try:
        harm()
        FOUND.append("through")
    except OSError:
        FOUND.append("stopped")

from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    ctx.reply_text(",".join(FOUND))
