"""The network of a worker: a loopback of its own with two doors, which somebody outside serves."""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import Final

POSTGRES_PORT: Final = 5432
EGRESS_PORT: Final = 3128
_BACKLOG: Final = 64
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP_RUNNING: Final = 0x1 | 0x40
_SO_NETNS_COOKIE: Final = 71


def raise_loopback() -> None:
    """Makes 127.0.0.1 work in a network namespace that is new."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP_RUNNING))


def door(port: int) -> socket.socket:
    """A listening socket on 127.0.0.1; port 0 takes a free one. It belongs to the namespace it is made in, whoever holds it."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    made.listen(_BACKLOG)
    made.setblocking(False)
    return made


def namespace_of(one: socket.socket) -> int:
    """A number of the network namespace that a socket lives in; the kernel never gives it twice (Linux 5.14)."""
    return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")


def proxies(port: int) -> dict[str, str]:
    """What tells programs of the door to the outside."""
    address = f"http://127.0.0.1:{port}"
    return dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"), address)
