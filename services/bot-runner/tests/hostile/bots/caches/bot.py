"""Listens at the wall: what others have used lately shows in how quickly it comes."""
import ctypes
import fcntl
import mmap
import os

from attempts import LIBC, attempt, checked, hostile

bot = hostile()
SHARED = os.__file__


def opened():
    return os.open(SHARED, os.O_RDONLY)


attempt("whether somebody has read a page of the library", calls="EPERM")(lambda _: os.preadv(opened(), [bytearray(4096)], 0, os.RWF_NOWAIT))
attempt("push a page of the library out", calls="EPERM")(lambda _: os.posix_fadvise(opened(), 0, 0, os.POSIX_FADV_DONTNEED))


@attempt("which pages of the library are in memory", calls="EPERM")
def resident(_):
    with open(SHARED, "rb") as file:
        seen = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_PRIVATE)
    LIBC.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    return checked(LIBC.mincore(ctypes.addressof(ctypes.c_char.from_buffer(seen)), 4096, ctypes.create_string_buffer(8)))


attempt("what is cached of a file", calls="EPERM")(lambda _: checked(LIBC.syscall(451, opened(), b"\0" * 16, ctypes.create_string_buffer(40), 0)))
attempt("a lease on the library", calls="EPERM")(lambda _: fcntl.fcntl(opened(), 1024, fcntl.F_WRLCK))
attempt("be told when somebody uses a folder", calls="EPERM")(lambda _: fcntl.fcntl(os.open(os.path.dirname(SHARED), os.O_RDONLY), 1026, 1))
attempt("be told when somebody uses a file", calls="EPERM")(lambda _: checked(LIBC.inotify_init1(0)))
attempt("whether a neighbour has the same code", root="ENOENT")(lambda aim: os.stat(aim.bundles + "/" + aim.guess).st_mode)
