"""Reaches out by links, and by every other way to name a file."""
import ctypes
import os

from attempts import attempt, hostile, syscall

bot = hostile()


@attempt("a symbolic link to the machine's passwords", root="ENOENT", files="EACCES|ENOENT")
def symbolic(_):
    os.symlink("/etc/shadow", "/tmp/link")
    return open("/tmp/link").read(20)


@attempt("a symbolic link to the folder above its root", root="ENOENT", files="EACCES|ENOENT")
def above(_):
    os.symlink("/../../../..", "/tmp/up")
    return os.listdir("/tmp/up/var")


@attempt("a hard link to the list of users", root="EXDEV|EROFS", files="EACCES|EPERM")
def hard(_):
    return os.link("/etc/passwd", "/tmp/passwd")


@attempt("a hard link out of its code", root="EXDEV|EROFS", files="EACCES|EXDEV")
def hard_code(aim):
    return os.link(aim.folder + "/bot.py", "/tmp/code.py")


@attempt("open by handle", calls="EPERM")
def handle(_):
    buffer = ctypes.create_string_buffer(b"\x80\0\0\0\1\0\0\0" + b"\2" + b"\0" * 127)
    return syscall("open_by_handle_at", -100, buffer, 0)


@attempt("ask for a handle", calls="EPERM")
def ask_handle(_):
    return syscall("name_to_handle_at", -100, b"/", ctypes.create_string_buffer(136), ctypes.create_string_buffer(8), 0)


@attempt("go up from its working directory", root="ENOENT", files="EACCES")
def upwards(_):
    at = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(30):
        at = os.open("..", os.O_PATH | os.O_DIRECTORY, dir_fd=at)
    return os.listdir(os.open("var", os.O_RDONLY, dir_fd=at))


@attempt("a folder that is moved while it is in it", root="ENOENT", files="EACCES|ENOENT")
def moved(_):
    os.makedirs("/tmp/a/b/c")
    os.chdir("/tmp/a/b/c")
    os.rename("/tmp/a/b/c", "/tmp/c")
    return open("../../../../../../etc/shadow").read(20)


@attempt("a named pipe to a neighbour", calls="EPERM")
def fifo(aim):
    return os.mkfifo(aim.bundles + "/pipe")


@attempt("set-uid in its own folder", root="nothing", files="EACCES|ENOENT|EPERM", calls="EPERM")
def suid(_):
    with open("/tmp/suid", "w") as file:
        file.write("x")
    os.chmod("/tmp/suid", 0o6755)
    return "nothing" if os.statvfs("/tmp").f_flag & os.ST_NOSUID and os.statvfs("/tmp").f_flag & os.ST_NOEXEC else "a set-uid file on a file system that honours it"
