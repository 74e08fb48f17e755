"""The processes below a test's own."""

from __future__ import annotations

import os
from pathlib import Path

from bench.processes import tree


def below(*programs: str) -> list[int]:
    """Of what this process started, those in whose command line one of these words is; a parent comes before its children.

    By descent, never by number: the numbers of processes wrap, and a child's may be the smaller.
    """
    found = list[int]()
    for pid in tree(os.getpid()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(program.encode() in command for program in programs):
            found.append(pid)
    return found
