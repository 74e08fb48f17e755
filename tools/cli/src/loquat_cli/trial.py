"""A bot on trial: loaded once in a worker process as bot-runner starts it, its declarations asked for, and ended."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import msgspec
from loquat import protocol
from loquat_embedded.child import before_exec, kill_group

_LIMIT: Final = 10.0  # seconds: bot-runner's own limit for a start
_SHOWN: Final = 64 << 10  # bytes of what the bot prints
_ENVIRONMENT: Final = {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}
"""All that a worker's environment holds at bot-runner."""
_NO_DATABASE: Final = "postgresql://nobody@127.0.0.1:1/none"  # connections open on first use: loading needs none


@dataclass(frozen=True, slots=True)
class Trial:
    """How it went: `ready` says what is declared, or `error` why the bot does not load. `printed` is what it wrote meanwhile."""

    ready: protocol.Ready | None
    error: str
    printed: str


async def on_trial(files: Mapping[str, str]) -> Trial:
    """Loads a bot from a folder that holds these files and nothing else, as a deployment would."""
    with tempfile.TemporaryDirectory(prefix="loquat-bot-") as made, tempfile.TemporaryFile() as output:
        answer = await _worker(_unpacked(files, made), output)
        output.seek(0)
        printed = output.read(_SHOWN).decode(errors="replace")
    match answer:
        case protocol.Ready():
            return Trial(answer, "", printed)
        case protocol.Refused(error=error):
            return Trial(None, error, printed)
        case str():
            return Trial(None, answer, printed)
        case _:
            return Trial(None, f"the bot's process said {type(answer).__name__} before it was asked anything", printed)


def _unpacked(files: Mapping[str, str], into: str) -> Path:
    folder = Path(into).resolve()
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


async def _worker(folder: Path, output: IO[bytes]) -> protocol.FromWorker | str:
    """The first frame of a worker, or what became of it instead."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "loquat.worker",
            str(theirs.fileno()),
            pass_fds=[theirs.fileno()],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_ENVIRONMENT,
            cwd="/",
            preexec_fn=before_exec(death_signal=signal.SIGKILL),
        )
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        writer.write(protocol.pack(protocol.Start(str(folder), _NO_DATABASE)))
        async with asyncio.timeout(_LIMIT):
            (size,) = protocol.HEADER.unpack(await reader.readexactly(protocol.HEADER.size))
            return protocol.WORKER_FRAMES.decode(await reader.readexactly(min(size, protocol.LARGEST)))
    except TimeoutError:
        return f"the bot did not load within {_LIMIT:g} s"
    except (asyncio.IncompleteReadError, OSError):
        code = await process.wait()
        return f"the bot's process ended while it loaded ({f'exit {code}' if code >= 0 else signal.Signals(-code).name})"
    except msgspec.MsgspecError:
        return "the bot wrote to the socket that is the worker's"
    finally:
        kill_group(process.pid, signal.SIGKILL)
        await process.wait()
        writer.close()
