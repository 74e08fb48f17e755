"""Reads and writes what is not its own."""
import os
from pathlib import Path

from attempts import attempt, hostile

bot = hostile()


def reading(path):
    return lambda aim: Path(path if isinstance(path, str) else path(aim)).read_bytes()[:40]


def writing(path):
    return lambda aim: Path(path if isinstance(path, str) else path(aim)).write_text("mine")


attempt("read the machine's passwords", root="ENOENT", files="EACCES")(reading("/etc/shadow"))
attempt("read the platform's secret", root="ENOENT", files="EACCES")(reading(lambda aim: aim.secret))
attempt("read a neighbour's code", root="ENOENT", files="EACCES")(reading(lambda aim: aim.neighbour + "/bot.py"))
attempt("list all tenants' code", root="ENOENT", files="EACCES")(lambda aim: os.listdir(aim.bundles))
attempt("climb out of its folder", root="ENOENT", files="EACCES")(reading(lambda _: "../" * 30 + "etc/shadow"))
attempt("read a mounted service account", root="ENOENT", files="ENOENT|EACCES")(reading("/var/run/secrets/kubernetes.io/serviceaccount/token"))
attempt("list the platform's folder", root="ENOENT", files="EACCES")(lambda aim: os.listdir(os.path.dirname(aim.secret)))
attempt("list the machine's folders", root="ENOENT", files="EACCES")(lambda _: os.listdir("/var"))
attempt("read a private key of TLS", root="ENOENT|EACCES", files="EACCES")(lambda _: os.listdir("/etc/ssl/private"))
attempt("change its own code", root="EROFS", files="EACCES")(writing(lambda aim: aim.folder + "/bot.py"))
attempt("add to its own code", root="EROFS", files="EACCES")(writing(lambda aim: aim.folder + "/new.py"))
attempt("poison the standard library", root="EROFS", files="EACCES")(writing(lambda _: os.path.dirname(os.__file__) + "/this_is_mine.py"))
attempt("poison the packages", root="EROFS", files="EACCES")(writing(lambda _: __import__("asyncpg").__path__[0] + "/mine.py"))
attempt("leave a file at the root", root="EROFS", files="EACCES")(writing("/left"))
attempt("leave a file for all", root="ENOENT", files="EACCES")(writing("/var/tmp/left"))
attempt("leave a file in shared memory", root="ENOENT", files="EACCES")(writing("/dev/shm/left"))
attempt("make a device", calls="EPERM")(lambda _: os.mknod("/tmp/null", 0o020666, os.makedev(1, 3)))
attempt("truncate a neighbour's code", root="ENOENT", files="EACCES")(lambda aim: os.truncate(aim.neighbour + "/bot.py", 0))
attempt("rename a neighbour's code", root="ENOENT", files="EACCES|EXDEV")(lambda aim: os.rename(aim.neighbour + "/bot.py", aim.neighbour + "/x.py"))
attempt("change the rights of a neighbour's code", root="ENOENT", calls="EPERM")(lambda aim: os.chmod(aim.neighbour + "/bot.py", 0o777))
attempt("change the times of a neighbour's code", root="ENOENT", calls="EPERM")(lambda aim: os.utime(aim.neighbour + "/bot.py"))
attempt("learn whether a neighbour is there", root="ENOENT")(lambda aim: os.stat(aim.neighbour + "/bot.py").st_size)
