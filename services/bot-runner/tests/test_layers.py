"""Bots' extra packages: fetched from an index by hash, unpacked aside, and shown to nobody but their project's bot."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import os
import shutil
import struct
import sys
import zipfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final, cast

import pytest
from loquat_bot_runner.adapters.bundles import Bundles
from loquat_bot_runner.adapters.gate import Gate
from loquat_bot_runner.adapters.layerchild import _unpack
from loquat_bot_runner.adapters.layermaker import NotNow, _explain, _put
from loquat_bot_runner.adapters.layers import _MOST, Layers, _room_for
from loquat_bot_runner.adapters.workers import Workers
from loquat_bot_runner.domain.wheels import LayerLimits
from loquat_bot_runner.errors import CallFailed, PackagesRefused, ProjectDatabaseAway
from loquat_events.projects import ProjectListed
from loquat_sandbox import Level, Sandbox, landlock
from structlog.testing import capture_logs

from tests.bots import housing, started
from tests.system.world import until
from tests.wheels import Index, serving, wheel

BOT: Final = """
from loquat import Bot
import sys, tiny

bot = Bot()
try:
    from tiny import _queue
    one = _queue.SimpleQueue()
    one.put(1)
    native = one.get()
except ImportError:
    native = None
try:
    open(tiny.__path__[0] + "/planted.py", "w")
    written = "it can write there"
except OSError as error:
    written = type(error).__name__
place = sys.path.index(tiny.__path__[0].rpartition("/")[0])
python, installed = sys.path.index(__import__("os").__file__.rpartition("/")[0]), [n for n, p in enumerate(sys.path) if "site-packages" in p]
print(tiny.x, native, written, python < place < min(installed), sys.modules["loquat"].__file__.startswith(tiny.__path__[0]))

@bot.fallback
async def handle(ctx): ...
"""


@pytest.fixture(scope="module")
async def index() -> AsyncGenerator[Index]:
    async with serving() as made:
        yield made


@pytest.fixture
async def layers(index: Index) -> AsyncGenerator[Layers]:
    made = Layers(index.url, patience=60)
    yield made
    await made.close()


def version(bundles: Path, lock: str, project: str = "prj", code: str = BOT) -> Path:
    """The folder of an unpacked version."""
    folder = bundles / project / f"v{len(list(bundles.glob('*/*')))}"
    folder.mkdir(parents=True)
    (folder / "bot.py").write_text(code)
    (folder / "requirements.lock").write_text(lock)
    return folder


def unheard(_event: str | None, _level: str, _text: str) -> None:
    return


def native() -> dict[str, bytes]:
    """A module of machine code, where this Python has one in a file."""
    spec = importlib.util.find_spec("_queue")
    found = Path(spec.origin) if spec is not None and spec.origin is not None and spec.has_location else None
    return {f"tiny/{found.name}": found.read_bytes()} if found is not None else {}


@pytest.mark.promise("P4")
async def test_a_bot_imports_what_its_lock_names_machine_code_too_and_cannot_write_there(
    layers: Layers, index: Index, bundles: Path, sandbox: Sandbox
) -> None:
    lock = index.add(wheel({"tiny/__init__.py": "x = 1\n", **native()})) + index.add(wheel({"more.py": ""}, "more"))
    lock += f"AsyncPG==0.1 --hash=sha256:{'0' * 64}\n"  # the platform's own stays
    folder, lines = version(bundles, lock), list[str]()

    def write(_event: str | None, _level: str, text: str) -> None:
        lines.append(text)

    asked = index.asked
    both = await asyncio.gather(layers.of("prj", folder, write), layers.of("prj", folder, unheard))
    assert both[0] == both[1]
    assert index.asked == asked + 2, "two who want the same fetch it once"
    assert lines[0].startswith("packages installed: more 1.0, tiny 1.0; the platform's own stay: asyncpg 0.")
    worker = await started(sandbox, folder, write, layers=layers)
    await until(lambda: _said(lines, 2), "it has said what it found")
    await worker.kill()
    found = f"1 {1 if native() else None} "
    assert lines[1].startswith(found)
    written, *where = lines[1].split()[2:]
    assert where == ["True", "False"], "behind what Python has, before what is installed, and the SDK is the platform's"
    if sandbox.level > Level.NONE:
        assert written in {"OSError", "PermissionError"}
    assert index.asked == asked + 2, "what is there is not fetched again"


async def _said(lines: list[str], many: int) -> bool:
    return len(lines) >= many


async def failing(layers: Layers, folder: Path, project: str) -> CallFailed:
    with pytest.raises(CallFailed) as failed:
        await layers.of(project, folder, unheard)
    return failed.value


async def test_why_nothing_is_installed_is_told_and_an_index_that_is_down_is_nobodys_fault_but_ours(
    layers: Layers, index: Index, bundles: Path
) -> None:
    windows = wheel({}, "windows", tag="cp311-cp311-win_amd64")
    tampered = index.add(wheel({"tampered.py": "x = 1"}, "tampered"))
    index.add(wheel({"tampered.py": "x = 2"}, "tampered"))
    locks = {
        tampered: "tampered 1.0: what the index has is not what the lock's hashes say",
        index.add(windows): "windows 1.0: the index has wheels for cp311-cp311-win_amd64 only",
    }
    async with serving() as down:
        down.down = 503
        other = Layers(down.url, patience=60)
        away = failing(other, version(bundles, tampered, "away"), "away")
        refused = [failing(layers, version(bundles, lock, str(n)), str(n)) for n, lock in enumerate(locks)]
        failures = await asyncio.gather(away, *refused)
    assert type(failures[0]) is ProjectDatabaseAway
    for failure, said in zip(failures[1:], locks.values(), strict=True):
        assert type(failure) is PackagesRefused
        assert failure.error.startswith(said)
        assert "127.0.0.1" not in failure.error
    assert not [*bundles.glob("*/layer-*")], "nothing is left"


class _Shelf:
    def __init__(self, lock: str) -> None:
        self.lock, self.lines = lock, list[str]()

    async def files(self, project: str, version: str) -> dict[str, str]:
        del project, version
        return {"bot.py": BOT, "requirements.lock": self.lock}

    def said(self, _project: str, text: str) -> str:
        return text

    async def log(self, _project: str, _event: object, _level: str, lines: list[str]) -> None:
        self.lines += lines


async def test_a_deployment_whose_packages_are_hostile_is_refused_and_the_log_says_why(
    layers: Layers, index: Index, bundles: Path, sandbox: Sandbox
) -> None:
    shelf = _Shelf(index.add(wheel({"evil.pth": "import os; os.abort()"}, "evil")))
    workers = Workers(cast("Any", shelf), Bundles(shelf, bundles), housing(sandbox, layers=layers), most=10, idle=60)
    writing = asyncio.create_task(workers.write_logs())
    project = ProjectListed(project_id="prj", organization_id="o", name="p", state="ready", cluster="c", database="d")
    gate = Gate(workers, cast("Any", None), cast("Any", None))
    (objection,) = await gate.objections(project, "v", moves_conversations=True)
    assert objection.code == "packages_refused"
    assert objection.detail.startswith("evil 1.0 brings evil.pth")
    await until(lambda: _said(shelf.lines, 1), "it stands in the project's log")
    assert shelf.lines == [objection.detail]
    asked = index.asked
    await gate.objections(project, "v", moves_conversations=True)
    assert index.asked == asked, "what was refused a moment ago is not fetched again"
    writing.cancel()


def unpacked(tmp_path: Path, *wheels: tuple[str, bytes], limits: LayerLimits | None = None, into: str = "made") -> dict[str, str]:
    """As the process aside does it."""
    (tmp_path / "wheels").mkdir(exist_ok=True)
    for name, content in wheels:
        (tmp_path / "wheels" / name).write_bytes(content)
    return _unpack(str(tmp_path / "wheels"), str(tmp_path / into), ["loquat"], limits or LayerLimits())


def lying() -> tuple[str, bytes]:
    """It says of a large file that it is small."""
    name, content = wheel({"a.py": b"\0" * 100_000})
    small, large = struct.pack("<I", 10), struct.pack("<I", 100_000)
    return name, content.replace(large, small)


def broken(compression: int) -> tuple[str, bytes]:
    """A file that its compression does not know again."""
    made, name = io.BytesIO(), f"compressed{compression}.py"
    with zipfile.ZipFile(made, "w", compression) as archive:
        archive.writestr(name, bytes(range(256)) * 9)
    content = bytearray(made.getvalue())
    begins = content.index(name.encode()) + len(name) + (4 if compression == zipfile.ZIP_BZIP2 else 9)
    content[begins : begins + 30] = b"\xff" * 30
    return "tiny-1.0-py3-none-any.whl", bytes(content)


def test_bombs_links_and_what_is_no_archive_are_refused_in_words(tmp_path: Path) -> None:
    bomb, many = wheel({"a.py": b"\0" * 3_000_000}), wheel({f"m/{n}.py": "" for n in range(50)})
    small = LayerLimits(unpacked=2 << 20, files=20)
    for bad, said in (
        (bomb, "the packages have more than 2 MiB unpacked, which is the limit"),
        (many, "the packages have more than 20 files and folders, which is the limit"),
        (wheel({"a/" * 30 + "a.py": ""}), "the packages have more than 20 files and folders, which is the limit"),
        (broken(zipfile.ZIP_BZIP2), "tiny 1.0 is no wheel that can be read (Invalid data stream)"),
        (broken(zipfile.ZIP_LZMA), "tiny 1.0 is no wheel that can be read (LZMAError)"),
        (lying(), "tiny 1.0 is no wheel that can be read (BadZipFile)"),
        ((bomb[0], b"no archive"), "tiny 1.0 is no wheel that can be read (BadZipFile)"),
        (wheel({"../../x.py": ""}), "tiny 1.0 holds '../../x.py': a path that leads out"),
        (wheel({"a": "", "a/b.py": ""}), "tiny 1.0 cannot be unpacked beside the others"),
    ):
        assert unpacked(tmp_path, bad, limits=small).get("refused", "").startswith(said)
    assert not (tmp_path.parent / "x.py").exists()


COMPILES: Final = """
import sys
from loquat_bot_runner.adapters.layerchild import _compile
_compile(sys.argv[1], 1 << 20)
"""


async def test_byte_code_takes_no_more_room_than_the_packages_may(tmp_path: Path) -> None:
    bomb = "".join(f"a = '{n:08}' * 512\n" for n in range(200))  # 4 KiB of each line
    for name, code in {"bomb": bomb * 2, **{f"bomb{n}": bomb for n in range(3)}, "fine": "x = 1\n"}.items():
        (tmp_path / f"{name}.py").write_text(code)
    process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-c", COMPILES, str(tmp_path))
    assert await process.wait() == 0
    compiled = {found.name.partition(".")[0]: found.stat().st_size for found in tmp_path.glob("__pycache__/*")}
    assert compiled.keys() == {"bomb", "fine"}
    assert sum(compiled.values()) <= 1 << 20


def test_what_two_wheels_bring_alike_is_the_first_ones_and_nobody_may_write_it(tmp_path: Path) -> None:
    assert unpacked(tmp_path, wheel({"shared/a.py": "1"}, "one"), wheel({"shared/a.py": "2", "shared/b.py": ""}, "two")) == {}
    made = tmp_path / "made" / "shared"
    assert (made / "a.py").read_text() == "1"
    assert {oct(p.stat().st_mode & 0o777) for p in made.iterdir()} == {"0o444"}


def test_an_error_of_this_machine_is_not_the_packages_fault(tmp_path: Path) -> None:
    assert [*unpacked(tmp_path, wheel({"a.py": ""}), into="/proc/self/none")] == ["away"]


async def test_a_runner_that_stops_in_the_middle_leaves_no_half_of_a_layer_and_one_that_is_killed_is_swept(
    index: Index, bundles: Path
) -> None:
    stopped = Layers(index.url, patience=0)
    for name, said in (
        ("halfway", "the bot's packages are being installed"),
        ("other", "other packages of this project are being installed"),
    ):
        failure = await failing(stopped, version(bundles, index.add(wheel({f"{name}.py": ""}, name))), "prj")
        assert (type(failure), failure.error) == (ProjectDatabaseAway, said)
    await until(lambda: _begun(bundles), "pip has begun")
    await stopped.close()
    assert not [*bundles.glob("*/layer-*")]
    for name in ("layer-ab", "layer-cd.123"):  # the second is of one that was killed
        (bundles / "prj" / name).mkdir()
        os.utime(bundles / "prj" / name, (1, 1))
    assert Bundles(cast("Any", None), bundles).sweep() == 2, "layers go as versions do"


async def _begun(bundles: Path) -> bool:
    return bool([*bundles.glob("*/layer-*/words")])


def test_an_index_with_a_key_in_its_path_is_not_in_the_runners_log(tmp_path: Path) -> None:
    away = "HTTPSConnectionPool(host='index.example.org', port=443): Max retries exceeded with url: /k3y/simple/tiny/ (refused)"
    told = (
        f"Could not fetch URL https://index.example.org/k3y/simple/tiny/: connection error: {away} - skipping\nERROR: No https://a:k3y@x/\n"
    )
    (tmp_path / "words").write_text(told)
    with capture_logs() as logs, pytest.raises(NotNow):
        _explain(tmp_path / "words")
    assert "Max retries exceeded" in str(logs)
    assert "k3y" not in str(logs)


def test_the_second_of_two_runners_keeps_what_the_first_made(tmp_path: Path) -> None:
    for name in ("made", "layer-a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()
    _put(tmp_path / "made", tmp_path / "layer-a")
    with pytest.raises(OSError, match="No such file"):
        _put(tmp_path / "nothing", tmp_path / "layer-b")


async def test_of_a_projects_many_layers_the_one_that_no_bot_has_and_nobody_asked_for_longest_makes_room(tmp_path: Path) -> None:
    there, layers = [tmp_path / f"layer-{n}" for n in range(_MOST)], Layers()
    for age, folder in enumerate((*there, tmp_path / "layer-9.123")):
        folder.mkdir()
        os.utime(folder, (age, age))
    left = [layers.held(folder) for folder in there]
    assert not _room_for(tmp_path / "layer-new", layers._held.values())
    for n in (3, 1):
        await left[n]()
    assert _room_for(tmp_path / "layer-new", layers._held.values())
    assert [folder.exists() for folder in there] == [True, False, True, True, True]
    assert _room_for(tmp_path / "layer-new", [])


@pytest.mark.parametrize("of", ["a version", "a layer"])
def test_a_folder_that_was_half_removed_when_the_runner_was_killed_is_not_taken_for_a_whole_one(
    of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_given: Any, **_named: Any) -> None:  # before the first file goes
        return

    monkeypatch.setattr(shutil, "rmtree", killed)
    for n in range(_MOST):
        (tmp_path / "prj" / f"layer-{n}").mkdir(parents=True)
        os.utime(tmp_path / "prj" / f"layer-{n}", (n, n))
    if of == "a version":
        assert Bundles(cast("Any", None), tmp_path).sweep() == _MOST
        assert all(found.suffix for found in (tmp_path / "prj").iterdir())
    else:
        assert _room_for(tmp_path / "prj" / "layer-new", [])
        assert not (tmp_path / "prj" / "layer-0").exists()


LOOKS: Final = """
import os, socket, sys
from loquat_bot_runner.adapters.layerchild import _confine
runner, work, step = int(sys.argv[1]), sys.argv[2], sys.argv[3]
_confine(runner, ["/"] if step == "fetch" else [work], work, None if step == "fetch" else ())
def attempt(act):
    try:
        act()
    except OSError as error:
        return type(error).__name__
    return "done"
print(attempt(lambda: open(f"/proc/{runner}/environ").read()), attempt(lambda: open(f"{work}/new", "w")), attempt(lambda: open(f"{work}/../out", "w")))
"""


@pytest.mark.parametrize("step", ["fetch", "unpack"])
async def test_what_makes_a_layer_cannot_look_into_the_runner_nor_write_elsewhere(step: str, tmp_path: Path) -> None:
    if not landlock.abi():
        pytest.skip("this kernel has no Landlock: nothing keeps apart what one user runs")
    command = [sys.executable, "-I", "-c", LOOKS, str(os.getpid()), str(tmp_path), step]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert (await process.communicate())[0].decode().split() == ["PermissionError", "done", "PermissionError"]
