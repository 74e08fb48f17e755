"""Asks the kernel's own files about others."""
import os

from attempts import attempt, hostile, syscall

bot = hostile()


def reading(path):
    return lambda aim: open(path(aim), "rb").read(60)


for who, pid in (("itself", lambda aim: "self"), ("the runner", lambda aim: aim.runner), ("a neighbour", lambda aim: aim.neighbour_pid), ("number 1", lambda aim: 1)):
    for file in ("environ", "mem", "maps", "cmdline"):
        attempt(f"{file} of {who}", root="ENOENT", files="EACCES")(reading(lambda aim, pid=pid, file=file: f"/proc/{pid(aim)}/{file}"))
attempt("descriptors of the runner", root="ENOENT", files="EACCES")(lambda aim: os.listdir(f"/proc/{aim.runner}/fd"))
attempt("the root of the runner", root="ENOENT", files="EACCES")(lambda aim: os.listdir(f"/proc/{aim.runner}/root/"))
attempt("its own root by /proc", root="ENOENT", files="EACCES")(lambda aim: os.listdir("/proc/self/root/.."))
attempt("memory of the machine", root="ENOENT", files="EACCES|ENOENT")(lambda aim: open("/dev/mem", "rb").read(10))
attempt("the machine's sysctls", root="ENOENT", files="EACCES")(lambda aim: open("/proc/sys/kernel/core_pattern").read())
attempt("control groups", root="ENOENT", files="EACCES")(lambda aim: os.listdir("/sys/fs/cgroup"))
attempt("mount /proc", calls="EPERM")(lambda aim: syscall("mount", b"proc", b"/tmp", b"proc", 0, None))
attempt("mount /proc in the new way", calls="EPERM")(lambda aim: syscall("fsopen", b"proc", 0))
