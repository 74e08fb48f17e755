"""The process from which workers are forked: `python -m loquat_sandbox.zygote FD`, started by `client.Zygote`.

It has an empty environment, one socket, one thread and no secret. It loads what bots load, once, and runs none of their code. From level 2 on
it is number 1 of a process namespace of its own: when it ends, for whatever reason, the kernel ends every worker with it.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from loquat_sandbox import callfilter, canary, kernel, landlock, layers, limits, root
from loquat_sandbox.architectures import here
from loquat_sandbox.levels import Level
from loquat_sandbox.messages import RUNNER, Begin, Begun, Broken, Ended, Fork, Forked, NotBegun, NotForked, receive, send

_STACK: Final = 1 << 20  # bytes of a thread's; 8 MiB each would eat the limit on addresses
_OUT_OF_MEMORY_SCORE: Final = "900"  # of 1000: bots go before anything of the platform's
BROKEN: Final = 70
"""Exit status of a worker one of whose layers failed."""


class Server:
    """Forks a worker for each packet, and tells how each ended."""

    def __init__(self, runner: socket.socket, begin: Begin) -> None:
        self._runner, self._level = runner, begin.level
        self._home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if begin.level >= Level.CONTAINED else None
        module, _, function = begin.entry.partition(":")
        self._entry: Callable[[int], None] = getattr(importlib.import_module(module), function)
        for name in begin.preload:
            importlib.import_module(name)
        shown = root.libraries([__package__ or "loquat_sandbox", module, *begin.preload])
        architecture = here()
        if architecture is None:
            raise OSError("this processor's calls are not known")
        program = callfilter.program(architecture, own_root=begin.level >= Level.CONTAINED)
        with suppress(OSError):  # not ours to raise in some containers
            Path("/proc/self/oom_score_adj").write_text(_OUT_OF_MEMORY_SCORE, encoding="ascii")
        threading.stack_size(_STACK)
        kernel.few_arenas()
        self._plan = layers.Plan(begin.level, tuple(shown), begin.bundles, limits.addresses_now(), program, landlock.abi())
        if begin.level >= Level.CONTAINED:
            root.build(shown, Path(begin.bundles))
        self._ends, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Until the runner closes its end."""
        signal.signal(signal.SIGCHLD, _ring)
        signal.set_wakeup_fd(self._bell)
        gc.collect()
        gc.freeze()  # or the first collection of each worker would copy every page of ours
        send(self._runner, Begun(self._plan.landlock))
        while True:
            ready, _, _ = select.select([self._runner, self._ends], [], [])
            if self._ends in ready:
                self._tell_ends()
            if self._runner in ready:
                packet, descriptors = receive(self._runner)
                if not packet:
                    return
                self._serve(RUNNER.decode(packet), descriptors)

    def _tell_ends(self) -> None:
        os.read(self._ends, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            send(self._runner, Ended(pid, status))

    def _serve(self, wanted: Begin | Fork, descriptors: list[int]) -> None:
        if isinstance(wanted, Begin):
            raise TypeError("a second beginning")
        try:
            self._answer(wanted, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _answer(self, wanted: Fork, descriptors: list[int]) -> None:
        try:
            pid = self._fork(wanted, descriptors)
        except OSError as error:
            send(self._runner, NotForked(wanted.id, str(error)))
            return
        pidfd = os.pidfd_open(pid)
        send(self._runner, Forked(wanted.id, pid), [pidfd])
        os.close(pidfd)

    def _fork(self, wanted: Fork, descriptors: list[int]) -> int:
        ours = os.getpid()
        if self._home is not None:
            kernel.unshare(kernel.NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                self._become_worker(wanted, descriptors, ours)
            return pid
        finally:
            if self._home is not None:
                kernel.setns(self._home, kernel.NEWPID)

    def _become_worker(self, wanted: Fork, descriptors: list[int], zygote: int) -> NoReturn:
        setup = descriptors[2]
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._runner.detach()  # its number will be another socket's
            layers.raise_walls(self._plan, wanted, descriptors, zygote if self._home is None else None)
            status = _work(canary.serve if wanted.canary else self._entry)
        except layers.LayerBroken as error:
            status = BROKEN
            _report(setup, error)
        except Exception as error:  # noqa: BLE001  (nothing of the zygote may go on in a child)
            status = BROKEN
            _report(setup, layers.LayerBroken("unexpected", repr(error)))
        finally:
            os._exit(status)


def _ring(_number: int, _frame: FrameType | None) -> None:
    """A signal must have a handler to ring the bell of `set_wakeup_fd`."""


def _work(entry: Callable[[int], None]) -> int:
    """What is left to do for a worker whose walls stand; its exit status."""
    sys.argv = ["bot", str(layers.CONTROL)]
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  (they stay open to the end)
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    try:
        entry(layers.CONTROL)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001  (the end of a process: what it was is for the log)
        traceback.print_exc()
        return 1
    return 0


def _report(setup: int, error: layers.LayerBroken) -> None:
    """The setup socket has moved once the descriptors were put in order."""
    for descriptor in (layers.SETUP, setup):
        with suppress(OSError), socket.socket(fileno=descriptor) as runner:
            send(runner, Broken(error.layer, error.why))
            return


def _enter_namespaces() -> None:
    """Namespaces that are ours to rule; this process stays outside, waits, and ends with the one inside, which returns."""
    flags = kernel.NEWNS | kernel.NEWPID
    if os.geteuid() != 0:
        user, group = os.geteuid(), os.getegid()
        kernel.unshare(kernel.NEWUSER | flags)
        for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {user} 1"), ("gid_map", f"1000 {group} 1")):
            Path(f"/proc/self/{name}").write_text(text, encoding="ascii")
    else:
        kernel.unshare(flags)
    inside = os.fork()
    if inside:
        _, status = os.waitpid(inside, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    kernel.die_with(None)


def main(descriptor: int) -> None:
    """Serves the runner at the other end of the socket."""
    runner = socket.socket(fileno=descriptor)
    runner.set_inheritable(False)
    packet, _ = receive(runner)
    begin = RUNNER.decode(packet)
    if not isinstance(begin, Begin):
        raise TypeError("no beginning")
    kernel.die_with(begin.parent)
    try:
        if begin.level >= Level.CONTAINED:
            _enter_namespaces()
        server = Server(runner, begin)
    except OSError as error:
        send(runner, NotBegun(str(error)))
        return
    with suppress(ConnectionError):  # the runner is gone, and so are we
        server.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
