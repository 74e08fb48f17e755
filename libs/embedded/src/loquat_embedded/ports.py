"""Ports of this machine."""

from __future__ import annotations

import random
import socket
from typing import Final

_LOWEST: Final = 12_000
_HIGHEST: Final = 32_000  # Linux takes local ports of outgoing connections from 32,768 up: a server that restarts could find its own in use
_TRIES: Final = 200


class PortBusy(Exception):
    """Somebody else listens there."""


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether one could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(*, besides: frozenset[int] = frozenset()) -> int:
    """A port that nobody uses at this moment, none of `besides`, and below those that outgoing connections get.

    Raises:
        PortBusy: 200 ports in a row were taken.
    """
    for _ in range(_TRIES):
        port = random.randrange(_LOWEST, _HIGHEST)  # noqa: S311  (no secret)
        if port not in besides and port_is_free(port):
            return port
    raise PortBusy(f"no free port was found between {_LOWEST} and {_HIGHEST}")
