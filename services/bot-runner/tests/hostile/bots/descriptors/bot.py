"""Looks for what was left open for it."""
import os
import socket
import stat

from attempts import attempt, hostile

bot = hostile()


def opened():
    for fd in range(4096):
        try:
            yield fd, os.fstat(fd)
        except OSError:
            continue


def sockets():
    for fd, found in list(opened()):  # before our own copies are among them
        if stat.S_ISSOCK(found.st_mode):
            yield fd, socket.socket(fileno=os.dup(fd))


def listed(found):
    return "nothing" if not (found := list(found)) else found


attempt("a folder that is open", descriptors="nothing")(lambda _: listed(fd for fd, s in opened() if stat.S_ISDIR(s.st_mode)))
attempt("a file that is open", descriptors="nothing")(lambda _: listed(fd for fd, s in opened() if stat.S_ISREG(s.st_mode) and s.st_size))
attempt("the zygote's socket", descriptors="nothing")(lambda _: listed(fd for fd, s in sockets() if s.family == socket.AF_UNIX and s.type == socket.SOCK_SEQPACKET))
attempt("a socket that listens", descriptors="nothing")(lambda _: listed(fd for fd, s in sockets() if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)))
attempt("a socket of a network", descriptors="nothing")(lambda _: listed(fd for fd, s in sockets() if s.family != socket.AF_UNIX))
attempt("sockets beside the one that it is heard on, and the pair of its own event loop", descriptors="nothing")(lambda _: listed([fd for fd, s in sockets() if s.family == socket.AF_UNIX][3:]))
attempt("a handle of the runner, by its own socket", calls="EPERM")(lambda _: [os.fstat(s.getsockopt(socket.SOL_SOCKET, 77)) for fd, s in sockets() if fd == 3])
attempt("what else is open", descriptors="nothing")(lambda _: listed(fd for fd, s in opened() if not (stat.S_ISSOCK(s.st_mode) or stat.S_ISCHR(s.st_mode) or stat.S_ISFIFO(s.st_mode) or s.st_mode == 0o600)))
attempt("more descriptors than it may have", limits="EMFILE")(lambda _: [os.open("/dev/null", os.O_RDONLY) for _ in range(2000)])
attempt("a wider limit", calls="EPERM|ValueError")(lambda _: __import__("resource").setrlimit(7, (100_000, 100_000)))  # ValueError is the name that resource gives to EPERM

