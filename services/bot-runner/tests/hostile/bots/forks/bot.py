"""Multiplies."""
import os
import subprocess
import threading
import time

from attempts import attempt, hostile, syscall

bot = hostile()


@attempt("fork", calls="EPERM")
def fork(_):
    for _ in range(300):
        if os.fork() == 0:
            time.sleep(3)
            os._exit(0)
    return "300 children"


attempt("fork, past the C library", calls="EPERM")(lambda _: syscall("clone", 17, 0, 0, 0, 0))
attempt("clone3", calls="ENOSYS")(lambda _: syscall("clone3", b"\0" * 88, 88))
attempt("a thread in a name space of its own", calls="EPERM")(lambda _: syscall("clone", 0x10000000 | 0x00010000 | 0x100 | 0x800, 0, 0, 0, 0))
attempt("exec", calls="EPERM")(lambda _: os.execv("/bin/sh", ["sh", "-c", "echo out"]))
attempt("execveat", calls="EPERM")(lambda _: syscall("execveat", -100, b"/bin/sh", None, None, 0))
attempt("a subprocess", calls="EPERM")(lambda _: subprocess.run(["/bin/true"], check=False))
attempt("posix_spawn", calls="EPERM")(lambda _: os.posix_spawn("/bin/true", ["true"], {}))
attempt("a shell", calls="nothing")(lambda _: "nothing" if os.system("true") != 0 else "a shell ran")


@attempt("ten thousand threads", group="RuntimeError", user="RuntimeError", limits="RuntimeError")
def threads(_):
    over = threading.Event()
    started = []
    try:
        for _ in range(10_000):
            thread = threading.Thread(target=over.wait, daemon=True)
            thread.start()
            started.append(thread)
    finally:
        over.set()
        for thread in started:
            thread.join(5)
    return "ten thousand"


attempt("a name space of users", calls="EPERM")(lambda _: syscall("unshare", 0x10000000))
attempt("a name space of processes", calls="EPERM")(lambda _: syscall("unshare", 0x20000000))
