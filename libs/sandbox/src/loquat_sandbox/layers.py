"""The walls around one worker, put up by itself after the fork and before any code of a bot, in the order in which each still may."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from loquat_sandbox import kernel, landlock, limits, network, root
from loquat_sandbox.levels import Level
from loquat_sandbox.messages import Fork, Standing, send

CONTROL: Final = 3
"""The descriptor of the control socket in every worker."""
SETUP: Final = 4
"""That of the socket on which it says that its walls stand; closed before a bot is loaded."""
_DOORS: Final = (network.POSTGRES_PORT, network.EGRESS_PORT)


class LayerBroken(Exception):
    """A layer could not be applied."""

    def __init__(self, layer: str, why: str) -> None:
        super().__init__(f"{layer}: {why}")
        self.layer, self.why = layer, why


@dataclass(frozen=True, slots=True)
class Plan:
    """What is the same for all workers of a zygote, made before the first fork."""

    level: Level
    libraries: tuple[str, ...]
    bundles: str
    addresses: int
    filter: bytes
    landlock: int


@contextmanager
def _layer(name: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise LayerBroken(name, str(error)) from error


def raise_walls(plan: Plan, wanted: Fork, descriptors: list[int], parent: int | None) -> None:
    """All layers, and its own folder as the working one. What is left open: 0, 1, 2 and the control socket.

    Raises:
        LayerBroken: one could not be applied. The process must end.
    """
    namespaces = plan.level >= Level.CONTAINED
    with _layer("control group"):
        for group in descriptors[3:]:
            os.write(group, b"0")
    with _layer("descriptors"):
        _keep_only(descriptors[0], descriptors[1], descriptors[2])
    doors = list[socket.socket]()
    if namespaces:
        with _layer("namespaces"):
            kernel.unshare(kernel.NEWNS | kernel.NEWNET)
        with _layer("network"):
            network.raise_loopback()
            doors = [network.door(port) for port in _DOORS]
        with _layer("root directory"):
            root.enter(wanted.bundle, wanted.layer, wanted.limits, os.getuid() if wanted.user is None else wanted.user)
    folder = root.APP if namespaces else f"{plan.bundles}/{wanted.bundle}"
    with _layer("limits"):
        limits.apply(wanted.limits, addresses=plan.addresses, own_user=wanted.user is not None)
        os.environ.clear()  # noqa: TID251  (nothing of it is read)
        os.environ.update(wanted.environment)  # noqa: TID251
    _give_up_rights(wanted, parent)
    with _layer("landlock"):
        shown = (folder,) if wanted.layer is None else (folder, f"{plan.bundles}/{wanted.layer}")
        _leave_files(plan, shown, namespaces, _DOORS if namespaces else wanted.doors or ())
    with _layer("privacy"):
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        os.chdir(folder)
    with _layer("seccomp"):
        kernel.filter_calls(plan.filter)
    with socket.socket(fileno=SETUP) as setup:
        send(setup, Standing(), [d.fileno() for d in doors])
    for one in doors:
        one.close()


def _keep_only(control: int, output: int, setup: int) -> None:
    """The descriptors get their places from above those places: none may overwrite another."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    high = [os.dup(fd) for fd in (nothing, output, output, control, setup)]
    while min(high) <= SETUP:
        high = [os.dup(fd) for fd in high]
    for place, fd in enumerate(high):
        os.dup2(fd, place, inheritable=False)
    os.closerange(SETUP + 1, os.sysconf("SC_OPEN_MAX"))


def _give_up_rights(wanted: Fork, parent: int | None) -> None:
    with _layer("bounding set"):
        kernel.drop_bounding_set()
    if wanted.user is not None:
        with _layer("user"):
            os.setgroups([])
            os.setresgid(wanted.user, wanted.user, wanted.user)
            os.setresuid(wanted.user, wanted.user, wanted.user)
    with _layer("capabilities"):
        kernel.drop_capabilities()
    with _layer("end with the zygote"):
        kernel.die_with(parent)
    with _layer("no new privileges"):
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def _leave_files(plan: Plan, shown: tuple[str, ...], namespaces: bool, ports: tuple[int, ...]) -> None:
    if plan.landlock == 0:  # from level 2 on a root and a network of its own hold without it
        return
    read = ("/",) if namespaces else (*plan.libraries, "/etc/hosts", *shown)
    landlock.restrict(read=read, write=(root.TEMPORARY,) if namespaces else (), devices=root.DEVICES, ports=ports)
