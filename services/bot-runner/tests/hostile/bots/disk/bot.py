"""Fills the disk."""
import os

from attempts import attempt, hostile

bot = hostile()


def fill(path, size):
    written = 0
    with open(path, "wb", buffering=0) as file:
        while written < size:
            written += file.write(b"x" * (1 << 20))
    return written


attempt("200 MB in one file", limits="EFBIG|ENOSPC", root="ENOSPC", files="EACCES")(lambda _: fill("/tmp/large", 200 << 20))


@attempt("200 MB in many files", root="ENOSPC", files="EACCES|ENOENT")
def many(_):
    return sum(fill(f"/tmp/{n}", 5 << 20) for n in range(40))


@attempt("a terabyte of nothing", limits="EFBIG", files="EACCES|ENOENT")
def sparse(_):
    with open("/tmp/sparse", "wb") as file:
        file.truncate(1 << 40)
    return "a terabyte"


@attempt("reserved space", root="ENOSPC|EFBIG", files="EACCES|ENOENT")
def reserved(_):
    with open("/tmp/reserved", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 100 << 20)
    return "reserved"


@attempt("five thousand files", root="ENOSPC", files="EACCES|ENOENT")
def inodes(_):
    for name in os.listdir("/tmp"):
        os.unlink(f"/tmp/{name}")
    for n in range(5000):
        os.close(os.open(f"/tmp/i{n}", os.O_CREAT | os.O_WRONLY))
    return 5000


@attempt("folders without end", root="ENOSPC", files="EACCES|ENOENT")
def folders(_):
    path = "/tmp"
    for n in range(5000):
        path = f"/tmp/d{n}" if n % 100 == 0 else f"{path}/d"
        os.mkdir(path)
    return 5000


@attempt("a program in its own folder", root="EPERM", calls="EPERM", files="EACCES|ENOENT")
def program(_):
    for name in os.listdir("/tmp"):
        if os.path.isfile(f"/tmp/{name}"):
            os.unlink(f"/tmp/{name}")
    with open("/tmp/x.so", "wb") as file:
        file.write(open(__import__("_ctypes").__file__, "rb").read() if hasattr(__import__("_ctypes"), "__file__") else b"x")
    import mmap

    with open("/tmp/x.so", "rb") as file:
        mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)
    return "executable"
