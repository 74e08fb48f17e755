"""What differs between the processors we run on: the kernel's name of the ABI, and the numbers of its calls."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Final

# name:x86-64:arm64, from the kernel's tables (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h); "-": not there.
# These numbers are ABI: the kernel never changes them.
_TABLE: Final = """
read:0:63 write:1:64 readv:19:65 writev:20:66 pread64:17:67 pwrite64:18:68 preadv:295:69 pwritev:296:70 preadv2:327:286 pwritev2:328:287
lseek:8:62 close:3:57 close_range:436:436 dup:32:23 dup2:33:- dup3:292:24 flock:73:32 fsync:74:82 fdatasync:75:83 ftruncate:77:46
truncate:76:45 open:2:- openat:257:56 openat2:437:437 creat:85:- access:21:- faccessat:269:48 faccessat2:439:439 stat:4:- lstat:6:-
fstat:5:80 newfstatat:262:79 statx:332:291 statfs:137:43 fstatfs:138:44 readlink:89:- readlinkat:267:78 getdents:78:- getdents64:217:61
getcwd:79:17 chdir:80:49 fchdir:81:50 mkdir:83:- mkdirat:258:34 rmdir:84:- unlink:87:- unlinkat:263:35 rename:82:- renameat:264:38
renameat2:316:276 link:86:- linkat:265:37 symlink:88:- symlinkat:266:36 umask:95:166 mmap:9:222 munmap:11:215 mremap:25:216
mprotect:10:226 madvise:28:233 mincore:27:232 msync:26:227 brk:12:214 rt_sigaction:13:134 rt_sigprocmask:14:135 rt_sigreturn:15:139
rt_sigtimedwait:128:137 rt_sigpending:127:136 rt_sigsuspend:130:133 sigaltstack:131:132 futex:202:98 futex_waitv:449:449
set_robust_list:273:99 get_robust_list:274:100 rseq:334:293 set_tid_address:218:96 membarrier:324:283 arch_prctl:158:-
restart_syscall:219:128 sched_yield:24:124 sched_getaffinity:204:123 sched_getparam:143:121 sched_getscheduler:145:120
getpriority:140:141 getcpu:309:168 poll:7:- ppoll:271:73 select:23:- pselect6:270:72 epoll_create:213:- epoll_create1:291:20
epoll_ctl:233:21 epoll_wait:232:- epoll_pwait:281:22 epoll_pwait2:441:441 eventfd:284:- eventfd2:290:19 timerfd_create:283:85
timerfd_settime:286:86 timerfd_gettime:287:87 nanosleep:35:101 clock_nanosleep:230:115 clock_gettime:228:113 clock_getres:229:114
gettimeofday:96:169 time:201:- times:100:153 setitimer:38:103 getitimer:36:102 alarm:37:- pause:34:- getrandom:318:278 uname:63:160
sysinfo:99:179 getrusage:98:165 getrlimit:97:163 getpid:39:172 getppid:110:173 gettid:186:178 getuid:102:174 geteuid:107:175
getgid:104:176 getegid:108:177 getresuid:118:148 getresgid:120:150 getgroups:115:158 getpgrp:111:- getpgid:121:155 getsid:124:156
pipe:22:- pipe2:293:59 sendfile:40:71 copy_file_range:326:285 connect:42:203 getsockname:51:204 getpeername:52:205 getsockopt:55:209
recvfrom:45:207 recvmsg:47:212 recvmmsg:299:243 shutdown:48:210 exit:60:93 exit_group:231:94 fadvise64:221:223 fallocate:285:47
chmod:90:- fchmod:91:52 fchmodat:268:53 fchmodat2:452:452 utimensat:280:88 clone:56:220 clone3:435:435 socket:41:198 socketpair:53:199
sendto:44:206 sendmsg:46:211 sendmmsg:307:269 setsockopt:54:208 fcntl:72:25 ioctl:16:29 prctl:157:167 tgkill:234:131 prlimit64:302:261
execve:59:221 execveat:322:281 fork:57:- vfork:58:- ptrace:101:117 process_vm_readv:310:270 process_vm_writev:311:271 pidfd_open:434:434
pidfd_getfd:438:438 pidfd_send_signal:424:424 kill:62:129 tkill:200:130 unshare:272:97 setns:308:268 mount:165:40 umount2:166:39
pivot_root:155:41 chroot:161:51 setuid:105:146 setgid:106:144 setresuid:117:147 setresgid:119:149 setgroups:116:159 capset:126:91
bpf:321:280 perf_event_open:298:241 userfaultfd:323:282 io_uring_setup:425:425 io_uring_enter:426:426 io_uring_register:427:427
keyctl:250:219 add_key:248:217 request_key:249:218 memfd_create:319:279 memfd_secret:447:447 shmget:29:194 msgget:68:186 semget:64:190
mq_open:240:180 setrlimit:160:164 setpriority:141:140 sched_setscheduler:144:119 personality:135:92 kcmp:312:272
name_to_handle_at:303:264 open_by_handle_at:304:265 bind:49:200 listen:50:201 accept:43:202 accept4:288:242 splice:275:76 tee:276:77
vmsplice:278:75 init_module:175:105 finit_module:313:273 kexec_load:246:104 reboot:169:142 swapon:167:224 mount_setattr:442:442
landlock_create_ruleset:444:444 landlock_add_rule:445:445 landlock_restrict_self:446:446 seccomp:317:277 open_tree:428:428
move_mount:429:429 fsopen:430:430 mknod:133:- mknodat:259:33 setxattr:188:5 syslog:103:116 quotactl:179:60 chown:92:- fchownat:260:54
"""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One ABI. `audit` is AUDIT_ARCH_* of linux/audit.h; calls at or above `foreign` belong to another ABI of the same processor (x32)."""

    name: str
    audit: int
    foreign: int | None
    numbers: dict[str, int]

    def __getitem__(self, call: str) -> int:
        """The number of a call.

        Raises:
            KeyError: this ABI does not have it.
        """
        return self.numbers[call]


def _column(index: int) -> dict[str, int]:
    cells = (entry.split(":") for entry in _TABLE.split())
    return {cell[0]: int(cell[index]) for cell in cells if cell[index] != "-"}


X86_64: Final = Architecture("x86_64", 0xC000003E, 0x40000000, _column(1))
ARM64: Final = Architecture("aarch64", 0xC00000B7, None, _column(2))


def here() -> Architecture | None:
    """This machine's, if it is one of ours."""
    return {"x86_64": X86_64, "aarch64": ARM64, "arm64": ARM64}.get(platform.machine())
