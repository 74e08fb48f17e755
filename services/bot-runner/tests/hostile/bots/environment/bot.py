"""Looks for secrets in itself: its environment, its memory, its interpreter."""
import ctypes
import gc
import os
import sys

from attempts import attempt, hostile

bot = hostile()
KNOWN = {"HOME", "LANG", "LC_CTYPE", "TMPDIR", "PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy", "NO_PROXY", "no_proxy", "TZ", "SSL_CERT_FILE"}


def listed(found):
    return "nothing" if not (found := list(found)) else found


attempt("variables of the environment", environment="nothing")(lambda _: listed(set(os.environ) - KNOWN))


@attempt("the environment that its process began with", environment="nothing")
def original(_):
    first = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    found, n = [], 0
    while first and first[n]:
        found.append(first[n].split(b"=")[0].decode())
        n += 1
    return listed(set(found) - KNOWN)


def holding(aim, backwards):
    """Values in its interpreter that hold a text. It is told that text backwards, or it would find what it was told."""
    wanted = backwards[::-1]
    for one in gc.get_objects():
        values = list(one.values()) if type(one) is dict else one if type(one) in (list, tuple) else ()
        for value in values:
            if isinstance(value, (str, bytes)) and len(value) < 10_000 and wanted in (value if isinstance(value, str) else value.decode("latin-1")):
                yield value[:30]


attempt("the password of its database", zygote="nothing")(lambda aim: listed(holding(aim, aim.drowssap)))
attempt("another project's name", zygote="nothing")(lambda aim: listed(v for v in holding(aim, aim.tcejorp) if "{" not in str(v) and "/" not in str(v)))


@attempt("modules of the platform", zygote="nothing")
def modules(_):
    return listed(m for m in sys.modules if m.startswith(("loquat_common", "loquat_events", "loquat_bot_runner", "aiokafka")))


@attempt("arguments of its process", zygote="nothing")
def arguments(_):
    return listed(a for a in sys.argv + sys.orig_argv if "/" in a and "python" not in a and a not in ("/app",))
