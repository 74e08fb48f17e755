"""What stands around a worker at each level. More attempts than here are in `canary.py`, which runs at the start of every runner."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from loquat import protocol
from loquat_sandbox import Level, Limits, Measured, Sandbox, network, outside

from tests.confined import Say, confined, loaded, printed

LIST = "import os\ntry:\n    print(sorted(os.listdir({path!r})))\nexcept OSError as error:\n    print(type(error).__name__)\n"


@pytest.mark.promise("P4")
async def test_all_that_a_hostile_bot_would_try_is_refused_and_an_honest_one_lives(at_level: Measured) -> None:
    """The canary has flown: `measure` gives a level only if nothing of its list got through."""
    assert at_level.sandbox.report()["seccomp"] is True
    await at_level.sandbox.start()


@pytest.mark.promise("P4")
async def test_each_wall_stands_by_itself_as_seen_from_outside(sandbox: Sandbox, shelf: Path) -> None:
    limits = Limits(memory=128 << 20)
    made = await loaded(sandbox, shelf, "import time\ntime.sleep(30)\n", "prj_a", limits)
    with network.door(0) as ours:
        assert outside.missing(confined(made), limits, sandbox.user_of("prj_a"), own_door=network.namespace_of(ours)) == []
    await made.close()


async def test_walls_that_do_not_stand_are_seen_from_outside(sandbox: Sandbox, shelf: Path) -> None:
    made = confined(await loaded(sandbox, shelf, "import time\ntime.sleep(30)\n"))
    made.pid, pid = os.getpid(), made.pid
    seen = outside.missing(made, Limits(), 12345, own_door=network.namespace_of(made.postgres))
    made.pid = pid
    await made.close()
    names = {line.split()[0] for line in seen}
    ours = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    around = {
        name for name, there in (("Seccomp", "2"), ("NoNewPrivs", "1")) if ours[name] == there
    }  # in a container these tests have them, too
    assert {"Seccomp", "NoNewPrivs", "Uid", "Max"} - around <= names
    assert any("our network" in line for line in seen) == (sandbox.level >= Level.CONTAINED)


@pytest.mark.promise("P4")
async def test_nothing_is_seen_of_the_machine_and_nothing_of_neighbours(sandbox: Sandbox, shelf: Path, say: Say) -> None:
    neighbour = await loaded(sandbox, shelf, "import time\nsecret = 1\ntime.sleep(30)\n", "prj_other")
    there = await say(LIST.format(path=str(shelf)))
    assert there.splitlines()[0] in {"FileNotFoundError", "PermissionError"}
    root = (await say(LIST.format(path="/"))).splitlines()[0]
    if sandbox.level >= Level.CONTAINED:
        needed = {Path(where).parts[1] for where in (sys.prefix, sys.base_prefix)}  # the way to the interpreter
        assert not ({"proc", "sys", "home", "var", "mnt"} - needed) & set(root.strip("[]").replace("'", "").split(", "))
    else:
        assert root == "PermissionError"
    assert neighbour.alive
    await neighbour.close()


@pytest.mark.promise("P4")
async def test_a_layer_is_imported_from_and_neither_written_nor_seen_by_others(sandbox: Sandbox, shelf: Path) -> None:
    folder, layer, other = (shelf / uuid4().hex for _ in range(3))
    for made in (folder, layer, other):
        made.mkdir()
    (layer / "tiny.py").write_text("x = 1\n")
    (folder / "bot.py").write_text(
        "import os, tiny\ndef attempt(act):\n    try:\n        return act()\n    except OSError as error:\n        return type(error).__name__\n"
        f"print(tiny.x, attempt(lambda: open(tiny.__file__, 'a')), attempt(lambda: open(tiny.__file__ + 'x', 'w')), attempt(lambda: os.listdir({str(other)!r})))\n"
    )
    worker = await sandbox.run("prj", folder, Limits(), layer=layer)
    start = protocol.pack(protocol.Start(worker.folder, "postgresql://x@127.0.0.1/x", worker.layer or ""))
    await asyncio.get_running_loop().sock_sendall(worker.control, start)
    said = (await printed(worker)).split()
    await worker.close()
    assert said[0] == "1"
    assert set(said[1:]) <= {"OSError", "PermissionError", "FileNotFoundError"}


@pytest.mark.promise("P4")
async def test_memory_beyond_the_limit_is_an_error_and_the_process_lives(say: Say) -> None:
    code = "try:\n    bytearray(200 << 20)\nexcept MemoryError:\n    print('refused')\nprint(len(bytearray(10 << 20)))\n"
    assert (await say(code, limits=Limits(memory=160 << 20))).startswith("refused\n10485760")


@pytest.mark.promise("P4")
async def test_its_own_temporary_files_are_bounded_in_bytes_and_in_number(sandbox: Sandbox, say: Say) -> None:
    if sandbox.level < Level.CONTAINED:
        pytest.skip("level 1 (confined) has no place for temporary files: nothing to bound")
    bytes_ = "import errno, os\ntry:\n    open('/tmp/big', 'wb').write(bytes(9 << 20))\nexcept OSError as e:\n    print(errno.errorcode[e.errno])\n"
    number = "n = 0\ntry:\n    while n < 5000:\n        open(f'/tmp/{n}', 'w').close(); n += 1\nexcept OSError as e:\n    print(n < 100, errno.errorcode[e.errno])\n"
    limits = Limits(temporary=4 << 20, temporary_files=64)
    assert (await say(bytes_ + "os.unlink('/tmp/big')\n" + number, limits=limits)).splitlines()[:2] == ["ENOSPC", "True ENOSPC"]


@pytest.mark.promise("P4")
async def test_descriptors_and_threads_have_an_end(sandbox: Sandbox, say: Say) -> None:
    files = "import os\nheld = []\ntry:\n    while True:\n        held.append(os.dup(1))\nexcept OSError:\n    print(len(held) < 64)\n[os.close(h) for h in held]\n"
    threads = (
        "import threading\nstop, n = threading.Event(), 0\ntry:\n    while n < 500:\n"
        "        threading.Thread(target=stop.wait, daemon=True).start(); n += 1\nexcept (RuntimeError, MemoryError):\n    pass\nprint(n)\nos._exit(0)\n"
    )
    first, number = (await say(files + threads, limits=Limits(files=64, processes=40))).splitlines()[:2]
    assert first == "True"
    assert int(number) < (40 if sandbox.level is Level.HARDENED else 300)


async def test_what_a_bot_prints_and_how_it_ends_is_heard(sandbox: Sandbox, shelf: Path) -> None:
    made = await loaded(sandbox, shelf, "import os\nprint('hello')\nos._exit(7)\n")
    assert await made.ended() == "exit 7"
    assert made.output.read(100) == b"hello\n"
    await made.close()


async def test_a_door_leads_to_us_and_says_whose_it_is(sandbox: Sandbox, shelf: Path) -> None:
    code = "import socket\nwith socket.create_connection(('127.0.0.1', {port})) as s:\n    s.sendall(b'it is me')\n    print(s.recv(10))\n"
    made = await loaded(sandbox, shelf, "import time\ntime.sleep(30)\n")
    await made.close()
    port = made.postgres_port if sandbox.level >= Level.CONTAINED else "int(__import__('os').environ['HTTPS_PROXY'].rpartition(':')[2])"
    made = await loaded(sandbox, shelf, code.format(port=port))
    loop, door = asyncio.get_running_loop(), made.postgres if sandbox.level >= Level.CONTAINED else made.egress
    async with asyncio.timeout(10):
        connection, _ = await loop.sock_accept(door)
        assert await loop.sock_recv(connection, 100) == b"it is me"
        await loop.sock_sendall(connection, b"hello")
        await made.ended()
    connection.close()
    assert (made.output.read(100) or b"").startswith(b"b'hello'")
    await made.close()


@pytest.mark.promise("P4")
async def test_a_neighbours_door_is_out_of_reach(say: Say) -> None:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        own.listen()
        code = f"import socket\ntry:\n    socket.create_connection(('127.0.0.1', {own.getsockname()[1]}), 2)\nexcept OSError as e:\n    print('refused')\n"
        assert (await say(code)).startswith("refused")


@pytest.mark.promise("P4")
async def test_no_two_projects_share_a_user(sandbox: Sandbox, shelf: Path) -> None:
    if sandbox.user_of("none") is None and sandbox.level < Level.HARDENED and os.geteuid() != 0:
        pytest.skip("the runner is not root: its bots have no users of their own")
    made = [await loaded(sandbox, shelf, "import time\ntime.sleep(30)\n", name) for name in ("prj_1", "prj_2", "prj_1")]
    users = [Path(f"/proc/{m.pid}").stat().st_uid for m in made]
    if sandbox.level is Level.HARDENED:
        assert users[0] == users[2] != users[1]
        assert 0 not in users
    for one in made:
        await one.close()
    assert sandbox.user_of("prj_1") is None
