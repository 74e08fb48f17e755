"""Takes memory in ways that the interpreter does not count."""
import mmap
import os
import socket

from attempts import attempt, hostile, syscall

bot = hostile()


attempt("eight gigabytes at once", limits="MemoryError")(lambda _: len(bytearray(8 << 30)))
attempt("eight gigabytes, mapped", limits="ENOMEM")(lambda _: len(mmap.mmap(-1, 8 << 30)))
attempt("a file in memory", calls="EPERM")(lambda _: os.memfd_create("x"))
attempt("secret memory", calls="EPERM")(lambda _: syscall("memfd_secret", 0))
attempt("shared memory of System V", calls="EPERM")(lambda _: syscall("shmget", 0, 1 << 30, 0o1600))
attempt("a message queue", calls="EPERM")(lambda _: syscall("mq_open", b"x", 0o102, 0o600, None))
attempt("semaphores", calls="EPERM")(lambda _: syscall("semget", 0, 250, 0o1600))
attempt("pages that are never swapped", calls="EPERM", limits="ENOMEM")(lambda _: syscall("mlockall", 3) if "mlockall" in __import__("loquat_sandbox.architectures", fromlist=["x"]).here().numbers else syscall(151 if os.uname().machine == "x86_64" else 230, 3))


@attempt("a little at a time, for ever", limits="MemoryError")
def hoard(_):
    kept = []
    while True:
        kept.append(bytearray(16 << 20))


@attempt("a gigabyte in sockets' buffers", limits="EMFILE")
def buffers(_):
    kept = []
    while True:
        a, b = socket.socketpair()
        kept += [a, b]
        a.setblocking(False)
        try:
            while a.send(b"x" * 65536):
                pass
        except BlockingIOError:
            continue


@attempt("larger pipes", calls="EPERM")
def pipes(_):
    import fcntl

    a, b = os.pipe()
    try:
        return fcntl.fcntl(a, 1031, 1 << 20)
    finally:
        os.close(a)
        os.close(b)
