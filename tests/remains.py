"""What a stack holds while it runs, and what is left of it when it has ended."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.processes import tree

_GROUPS: Final = Path("/sys/fs/cgroup")
_ADOPTS: Final = 36  # PR_SET_CHILD_SUBREAPER


def adopt() -> None:
    """From now on what loses its parent is ours: nothing that the stack leaves behind escapes `left_behind`."""
    from loquat_sandbox import kernel  # noqa: PLC0415  (Linux alone has it)

    kernel.prctl(_ADOPTS, 1)


def since(pid: int) -> str:
    """When a process began, as `loquat_sandbox.groups` writes it; "" when it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def left_behind() -> list[str]:
    """Processes below this one that still run."""
    found = list[str]()
    for pid in tree(os.getpid())[1:]:
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(f"process {pid}: {Path(f'/proc/{pid}/cmdline').read_bytes().replace(bytes(1), b' ').decode()[:120]}")
    return found


def groups(runner: str) -> list[str]:
    """Control groups that a runner has made; `runner` is its number and its beginning, with a dash between."""
    ours = f"loquat-{runner}-"  # walked by hand: others' groups come and go, and a pattern's search ends at one that is gone
    return [str(Path(folder, name)) for folder, names, _ in os.walk(_GROUPS) for name in names if name.startswith(ours)]


def mounts(below: Path) -> list[str]:
    """What is mounted there, as this process sees it."""
    return [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if line.split()[1].startswith(str(below))]


def descriptors(pid: int) -> int:
    """Open files of a process; 0 when it has ended."""
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return 0


def own_memory(pid: int) -> float:
    """MiB that it has allocated and nobody shares; 0 when it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
    return 0.0


@dataclass(slots=True)
class Growth:
    """Samples of one process' memory, in MiB. The first third is its warm-up: caches fill, every project is met."""

    samples: list[float] = field(default_factory=list[float])

    @property
    def thirds(self) -> tuple[float, float]:
        """The medians of the second and of the last third."""
        n = len(self.samples) // 3
        return (_median(self.samples[n : 2 * n]), _median(self.samples[2 * n :]))

    @property
    def grown(self) -> float:
        """MiB between them."""
        before, after = self.thirds
        return after - before


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0
