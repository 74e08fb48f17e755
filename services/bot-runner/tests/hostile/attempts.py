"""What hostile bots share; the harness puts it beside each of them. An attempt names the layers that stop it, in the order in which they come, and how each
of them answers: an errno's name, an exception's, or what is said instead of success."""

import asyncio
import ctypes
import errno
import inspect
import json
from types import SimpleNamespace

from loquat import Bot
from loquat_sandbox.architectures import here

TRIES = []
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


def attempt(name, **stops):
    def add(function):
        TRIES.append((name, stops, function))
        return function

    return add


def syscall(name, *arguments):
    """A call of the kernel by its name, past every library."""
    number = here().numbers[name] if isinstance(name, str) else name
    return checked(LIBC.syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)))


def checked(answer):
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, errno.errorcode.get(number, "?"))
    return answer


async def outcome(function, aim):
    try:
        answer = function(aim)
        if inspect.isawaitable(answer):
            answer = await asyncio.wait_for(answer, 5)
    except OSError as error:
        return errno.errorcode.get(error.errno) or type(error).__name__
    except BaseException as error:  # noqa: BLE001
        return getattr(error, "sqlstate", None) or type(error).__name__
    return f"through: {answer}"[:300] if answer != "nothing" else "nothing"


def hostile():
    """A bot that makes all attempts of its module and tells how each ended."""
    bot = Bot()

    @bot.fallback
    async def try_all(ctx):
        aim = SimpleNamespace(ctx=ctx, **json.loads(ctx.event.text))
        for name, stops, function in TRIES:
            ctx.reply_text(json.dumps([name, stops, await outcome(function, aim)]))

    return bot
