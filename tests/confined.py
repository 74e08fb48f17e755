"""Workers without a runner: a bot that is any code, and what it prints."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

from loquat import protocol
from loquat_sandbox import Confined, Limits, Process, Sandbox

Say = Callable[..., Awaitable[str]]
"""What a bot prints that is this code."""


async def loaded(sandbox: Sandbox, shelf: Path, code: str, project: str = "prj", limits: Limits | None = None) -> Process:
    """A worker that was told to load this code. It has printed nothing yet, or some."""
    folder = shelf / uuid4().hex
    folder.mkdir()
    (folder / "bot.py").write_text(code)
    made = await sandbox.run(project, folder, limits or Limits())
    await asyncio.get_running_loop().sock_sendall(made.control, protocol.pack(protocol.Start(made.folder, "postgresql://x@127.0.0.1/x")))
    return made


async def printed(made: Process) -> str:
    """All that it prints to its end."""
    async with asyncio.timeout(20):
        await made.ended()
    return (made.output.read(1 << 20) or b"").decode()


async def gone(pids: list[int]) -> None:
    """Waits until there is none of these processes."""
    async with asyncio.timeout(10):
        while any(Path(f"/proc/{pid}").exists() for pid in pids):  # noqa: ASYNC110  (the kernel rings no bell)
            await asyncio.sleep(0.01)


def confined(process: Process) -> Confined:
    assert isinstance(process, Confined)
    return process
