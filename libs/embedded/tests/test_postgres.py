"""The launcher, with real servers."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import asyncpg
import pytest
from loquat_embedded.child import gone
from loquat_embedded.postgres import Cluster, ClusterFailed, PortBusy

PATIENCE = 20.0

STARTER = """
import asyncio, sys
from pathlib import Path
from loquat_embedded.postgres import Cluster

async def main():
    cluster = Cluster(Path(sys.argv[1]), durable=False)
    await cluster.start()
    print(cluster.pid, flush=True)
    if sys.argv[2] == "stay":
        await cluster.ended()
    await cluster.stop()

asyncio.run(main())
"""


@pytest.fixture
def home() -> Generator[Path]:
    """Not pytest's own folder, which only its owner may pass."""
    with tempfile.TemporaryDirectory(prefix="loquat-embedded-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture
async def cluster(home: Path) -> AsyncGenerator[Cluster]:
    made = Cluster(home / "one", durable=False, address_space=512 << 20)
    await made.start()
    yield made
    await made.stop()


async def test_a_cluster_that_is_started_again_has_its_data_on_its_port(cluster: Cluster) -> None:
    port = cluster.port
    first = await cluster.connect()
    await first.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    await first.close()
    await cluster.stop()
    assert cluster.pid is None
    await cluster.start()
    second = await cluster.connect()
    assert await second.fetchval("SELECT answer FROM kept") == 42
    assert await second.fetchval("SELECT lower('Ñ')") == "ñ"
    assert cluster.port == port
    await second.close()


async def test_data_survive_the_servers_sudden_death_and_its_lock_does_not_block_the_next_start(cluster: Cluster) -> None:
    connection = await cluster.connect()
    await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    cluster.kill()
    assert (cluster.home / "data" / "postmaster.pid").exists()
    await cluster.start()
    again = await cluster.connect()
    assert await again.fetchval("SELECT answer FROM kept") == 42
    await again.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only /proc tells whose a process is")
async def test_a_crashed_servers_lock_that_names_a_strangers_process_is_removed(cluster: Cluster) -> None:
    await cluster.stop()
    (cluster.home / "data" / "postmaster.pid").write_text(f"{os.getppid()}\n{cluster.home / 'data'}\n")
    await cluster.start()
    assert cluster.pid is not None


async def test_a_start_waits_for_the_server_that_is_still_ending_on_the_same_data(cluster: Cluster) -> None:
    successor = Cluster(cluster.home, port=cluster.port, durable=False)
    starting = asyncio.create_task(successor.start())
    await asyncio.sleep(0)
    await cluster.stop()
    async with asyncio.timeout(PATIENCE):
        await starting
    assert successor.pid is not None
    await successor.stop()


async def test_nobody_enters_without_the_password_which_only_its_owner_reads(cluster: Cluster) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await cluster.connect(password="guessed")
    assert (cluster.home / "password").stat().st_mode & 0o777 == 0o600
    assert not (cluster.home / "password.handed").exists()


async def test_a_wrong_password_file_is_named_and_no_server_stays_behind(cluster: Cluster) -> None:
    await cluster.stop()
    (cluster.home / "password").write_text("another")
    with pytest.raises(ClusterFailed, match="password is not the password of postgres"):
        await cluster.start()
    assert cluster.pid is None
    assert not (cluster.home / "data" / "postmaster.pid").exists()


@pytest.mark.promise("P5")
@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not hold an address-space limit")
async def test_a_backend_that_wants_more_than_its_address_space_gets_an_error_and_the_server_goes_on(cluster: Cluster) -> None:
    connection = await cluster.connect()
    with pytest.raises(asyncpg.OutOfMemoryError):
        await connection.fetchval("SELECT length(repeat('x', 600000000))")
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


async def test_settings_reach_the_server_at_each_start(home: Path) -> None:
    for limit in ("21", "22"):
        cluster = Cluster(home / "one", durable=False, settings={"max_connections": limit, "log_error_verbosity": "terse"})
        await cluster.start()
        connection = await cluster.connect()
        assert await connection.fetchval("SHOW max_connections") == limit
        await connection.close()
        await cluster.stop()


async def test_a_setting_that_postgres_refuses_is_shown_with_its_own_words(home: Path) -> None:
    with pytest.raises(ClusterFailed, match=r"unrecognized configuration parameter \"no_such_setting\""):
        await Cluster(home / "one", durable=False, settings={"no_such_setting": "on"}).start()


async def test_a_busy_port_is_named(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortBusy, match=f"port {port} is taken"):
            await Cluster(home / "one", port=port, durable=False).start()


async def test_data_of_another_major_version_are_refused_with_both_numbers(cluster: Cluster) -> None:
    await cluster.stop()
    (cluster.home / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(ClusterFailed, match=r"made by PostgreSQL 12, the programs in .* are \d+"):
        await cluster.start()


async def test_a_first_start_that_was_cut_off_is_made_anew(home: Path) -> None:
    (home / "one" / "data.making").mkdir(parents=True)
    (home / "one" / "data.making" / "PG_VERSION").write_text("18\n")
    (home / "one" / "password").write_text("of the start that was cut off")
    cluster = Cluster(home / "one", durable=False)
    await cluster.start()
    assert cluster.pid is not None
    await cluster.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not tie a child to its parent")
async def test_the_server_ends_with_the_process_that_started_it(home: Path) -> None:
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", STARTER, home / "one", "stay", stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(PATIENCE):
        assert parent.stdout is not None
        server = int(await parent.stdout.readline())
        parent.kill()
        await parent.wait()
        await gone(server)
    assert not (home / "one" / "data" / "postmaster.pid").exists()


def as_an_ordinary_user(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    """The outcome of Python with these arguments; None where every Python here is closed to other users."""
    for interpreter in (sys.executable, "/usr/bin/python3"):
        command = [interpreter, "-B", "-W", "ignore", *arguments]
        environment = {"PYTHONPATH": ":".join(p for p in sys.path if p), "PATH": "/usr/bin:/bin"}
        try:
            done = subprocess.run(
                command,
                user=65534,
                group=65534,
                extra_groups=[],
                cwd="/",
                env=environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
        except PermissionError:
            continue
        if "ModuleNotFoundError" not in done.stderr:  # the system's may be of another version
            return done
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="we are an ordinary user: all other tests show it")
def test_an_ordinary_user_starts_a_cluster_too(home: Path) -> None:
    home.chmod(0o777)
    done = as_an_ordinary_user("-c", STARTER, str(home / "one"), "go")
    if done is None:
        pytest.skip("every Python on this machine is closed to other users")
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 0
