"""A bot's own tests: pytest in the environment of its folder, with a throw-away PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from loquat_embedded.postgres import Cluster, ClusterFailed, NoPostgres

from loquat_cli.errors import Trouble

SCRATCH: Final = "LOQUAT_SCRATCH_DATABASE"
"""The environment variable that names the throw-away database to tests."""
_NEEDED: Final = {"pytest": "pytest", "loquat.testing": "loquat-bot-sdk"}


class NotInstalled(Trouble):
    """The environment of the bot lacks what its tests need."""


class NoDatabase(Trouble):
    """There is no PostgreSQL for the tests."""


def interpreter(folder: Path) -> Path:
    """The Python of a bot's folder: that of its virtual environment, else the one that runs this."""
    own = [folder.absolute() / name / "bin" / "python" for name in (".venv", "venv")]
    return next((p for p in own if p.is_file()), Path(sys.executable))


async def run_pytest(folder: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs pytest in the folder, on this terminal; its exit code.

    Raises:
        NotInstalled: pytest or the SDK is not there.
    """
    python = interpreter(folder)
    for module, package in _NEEDED.items():
        found = await asyncio.create_subprocess_exec(
            python, "-c", f"import {module}", cwd=folder, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        if await found.wait():
            raise NotInstalled(f"{package} is not installed for {python}. Install it with: {python} -m pip install {package}")
    process = await asyncio.create_subprocess_exec(python, "-m", "pytest", *arguments, cwd=folder, env={**os.environ, **environment})
    return await process.wait()


@asynccontextmanager
async def scratch_database() -> AsyncGenerator[Mapping[str, str]]:
    """The environment that names a throw-away PostgreSQL: the one that is named already, else a new one for as long as this lasts.

    Raises:
        NoDatabase: it does not start.
    """
    if SCRATCH in os.environ:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="loquat-scratch-", ignore_cleanup_errors=True) as made:
        os.chmod(made, 0o711)  # noqa: PTH101, S103  (the server runs as somebody else when we are root)
        cluster = Cluster(Path(made) / "cluster", durable=False)
        try:
            await cluster.start()
        except (NoPostgres, ClusterFailed) as error:
            raise NoDatabase(f"no PostgreSQL for the tests: {error}. Name one in {SCRATCH}, or go without: --no-database") from error
        try:
            yield {SCRATCH: cluster.dsn()}
        finally:
            await cluster.stop()
