"""`make bench`: the numbers of docs/benchmarks.md, measured here and now. `make bench ARGS="webhook idle"` picks some; BUS=kafka the engine.

Durable: fsync is on everywhere. What shares which core is printed beside each number: two cores carry everything, the generator included.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import uvloop
from loquat_cli.settings import StackSettings
from loquat_cli.stack import Stack

from bench.begin import begin
from bench.calls import calls
from bench.database import database
from bench.migrations import migrations
from bench.neighbours import neighbours
from bench.replies import idle, projects, replies
from bench.sandbox import sandbox
from bench.webhook import webhook


async def main(chosen: list[str]) -> None:
    bus = StackSettings().bus
    print(f"bus: {bus}; {os.cpu_count()} cores; generator, services and databases share them unless said")
    if not chosen or "webhook" in chosen:
        await webhook(bus)
    if not chosen or "database" in chosen:
        await database()
    if not chosen or "migrations" in chosen:
        await migrations()
    if chosen and not {"projects", "replies", "idle"} & set(chosen):
        return
    with tempfile.TemporaryDirectory(prefix="loquat-bench-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o711)
        async with Stack(StackSettings.for_tests(home, bus=bus, durable=True, environment="development"), with_demo=True) as stack:
            for measure in (idle, projects, replies):
                if not chosen or measure.__name__ in chosen:
                    await measure(stack)


async def bots(chosen: list[str]) -> None:
    """In these, this process is the runner: they are measured on the runner's own loop."""
    for measure in (sandbox, calls, neighbours, begin):
        if not chosen or measure.__name__ in chosen:
            await measure()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
    uvloop.run(bots(sys.argv[1:]))
