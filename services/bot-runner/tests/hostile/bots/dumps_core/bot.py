"""Dies loudly: a core of it would hold its neighbours' library and its own secrets."""
import os
import resource

from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
    except (OSError, ValueError):
        os.chdir("/tmp") if os.access("/tmp", os.W_OK) else None
    os.abort()
