"""Watches others without touching them: by their clocks, their places, the state of the machine."""
import os
import resource
import time

from attempts import attempt, hostile

bot = hostile()


def clock_of(pid):
    return ~pid << 3 | 2


for who, pid in (("a neighbour", lambda aim: aim.neighbour_pid), ("the runner", lambda aim: aim.runner)):
    attempt(f"the processor time of {who}", calls="EPERM", processes="EINVAL")(lambda aim, pid=pid: time.clock_gettime(clock_of(pid(aim))))
    attempt(f"the resolution of the clock of {who}", calls="EPERM", processes="EINVAL")(lambda aim, pid=pid: time.clock_getres(clock_of(pid(aim))))
    attempt(f"where {who} runs", calls="EPERM", processes="ESRCH")(lambda aim, pid=pid: os.sched_getaffinity(pid(aim)))
    attempt(f"how {who} is scheduled", calls="EPERM", processes="ESRCH")(lambda aim, pid=pid: os.sched_getscheduler(pid(aim)))
    attempt(f"how {who} is ranked", calls="EPERM", processes="ESRCH")(lambda aim, pid=pid: os.getpriority(os.PRIO_PROCESS, pid(aim)))
    attempt(f"the session of {who}", calls="EPERM", processes="ESRCH")(lambda aim, pid=pid: os.getsid(pid(aim)))
    attempt(f"the group of {who}", calls="EPERM", processes="ESRCH")(lambda aim, pid=pid: os.getpgid(pid(aim)))
    attempt(f"limits of {who}", calls="EPERM", processes="ESRCH")(lambda aim, pid=pid: resource.prlimit(pid(aim), resource.RLIMIT_NOFILE))
attempt("how loaded the machine is", root="ENOENT|OSError", files="EACCES|OSError")(lambda _: open("/proc/loadavg").read())
attempt("which processes there are", root="ENOENT", files="EACCES")(lambda _: os.listdir("/proc"))
attempt("what its network has seen", root="ENOENT", files="EACCES")(lambda _: open("/proc/net/tcp").read())
