"""CPU and memory of processes, read from /proc."""

from __future__ import annotations

import os
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = list[int](), [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def cpu(pids: list[int]) -> float:
    """Seconds used so far, by these processes and by their children that ended."""
    used = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        used += sum(int(fields[n]) for n in (11, 12, 13, 14)) / TICK
    return used


def memory(pids: list[int]) -> tuple[float, float]:
    """Megabytes: with shared memory counted once (PSS), and as a plain sum (RSS)."""
    pss = rss = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        for line in text.splitlines():
            name, _, value = line.partition(":")
            if name in {"Pss", "Rss"}:
                size = int(value.split()[0])
                pss, rss = (pss + size, rss) if name == "Pss" else (pss, rss + size)
    return pss / 1024, rss / 1024
