"""Which tests follow each other on one worker: those of a file, and all system tests of an engine, since they share a stack that takes long to start."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    import pytest

_SYSTEM = "tests/system/"
_ENGINES = ("postgres", "kafka")


def stack(nodeid: str) -> str | None:
    """The stack that a test runs on, by its engine; None: it needs none."""
    words = nodeid.rpartition("[")[2].rstrip("]").split("-")
    return next((e for e in _ENGINES if e in words), None) if nodeid.startswith(_SYSTEM) else None


def stacks_first(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Those that take longest begin first, so that no worker waits for another at the end; the order among them stays."""
    ranks = {engine: n for n, engine in enumerate(_ENGINES)}
    return sorted(items, key=lambda item: ranks.get(stack(item.nodeid) or "", len(ranks)))


class Grouped(LoadFileScheduling):
    """What `--dist loadfile` does, but for system tests."""

    def _split_scope(self, nodeid: str) -> str:
        return stack(nodeid) or super()._split_scope(nodeid)


def scheduler(config: Any, log: Any) -> Grouped:
    """For xdist."""
    return Grouped(config, log)
