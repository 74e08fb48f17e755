"""Real worker processes: what a bot may do to itself, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from loquat_bot_runner.adapters.confine import Limits
from loquat_bot_runner.adapters.worker import Worker
from loquat_bot_runner.errors import BotError, CallFailed, DoesNotStart, OutOfMemory, ProtocolViolated, TimedOut

HEAD = "from loquat import Bot\nbot = Bot()\n\n@bot.fallback\nasync def handle(ctx):\n"
Start = Callable[[str], Awaitable[Worker]]
Lines = list[tuple[str, str]]


@pytest.fixture
def lines() -> Lines:
    return []


@pytest.fixture
async def start(tmp_path: Path, lines: Lines) -> AsyncGenerator[Start]:
    made: list[Worker] = []

    async def run(body: str) -> Worker:
        folder = tmp_path / f"v{len(made)}"
        folder.mkdir()
        (folder / "bot.py").write_text(body)
        worker = Worker("prj", Limits(256 << 20), lambda _call, level, text: lines.append((level, text)))
        made.append(worker)
        await worker.start(folder, "postgresql://nobody@127.0.0.1:1/none")
        return worker

    yield run
    for worker in made:
        await worker.kill()


def call(worker: Worker, limit: float = 5.0) -> Awaitable[dict[str, Any]]:
    one = str(UUID(int=1))
    event: dict[str, Any] = {"id": one, "type": "text", "text": "hi", "content": {}}
    return worker.call(limit, event=event, contact={"id": one}, conversation={"id": one, "number_id": "1"}, state="unstructured", version=0)


async def test_a_handler_answers_and_its_log_lines_arrive(start: Start, lines: Lines) -> None:
    worker = await start(HEAD + "    ctx.log.info('seen')\n    ctx.reply_text('hello ' + ctx.event.text)\n    ctx.goto('next')\n")
    assert await call(worker) == {"replies": [{"type": "text", "text": "hello hi"}], "state": "next"}
    assert ("info", "seen") in lines


async def test_calls_of_one_bot_run_side_by_side(start: Start) -> None:
    worker = await start("import asyncio\n" + HEAD + "    await asyncio.sleep(0.3)\n    ctx.reply_text('x')\n")
    async with asyncio.timeout(2):
        assert len(await asyncio.gather(*(call(worker) for _ in range(20)))) == 20


@pytest.mark.promise("P8")
async def test_an_exception_comes_with_the_bots_own_frames_only(start: Start) -> None:
    worker = await start(HEAD + "    ctx.reply_text('never said')\n    raise KeyError('drawer')\n")
    with pytest.raises(BotError, match="KeyError: 'drawer'") as failed:
        await call(worker)
    assert 'File "bot.py", line 7, in handle' in failed.value.trace
    assert "worker.py" not in failed.value.trace
    assert not worker.dead


@pytest.mark.parametrize(
    "body",
    [
        "    while True:\n        pass\n",
        "    import asyncio\n    while True:\n        try:\n            await asyncio.sleep(60)\n        except asyncio.CancelledError:\n            pass\n",
    ],
    ids=["busy loop", "swallows cancellation"],
)
async def test_a_handler_that_does_not_end_is_ended_with_its_process(start: Start, body: str) -> None:
    worker = await start(HEAD + body)
    with pytest.raises(TimedOut):
        await call(worker, 0.3)
    assert worker.dead


async def test_a_handler_that_is_only_slow_is_cancelled_and_the_process_lives(start: Start) -> None:
    worker = await start("import asyncio\n" + HEAD + "    await asyncio.sleep(60)\n")
    with pytest.raises(TimedOut):
        await call(worker, 0.2)
    assert not worker.dead


@pytest.mark.parametrize("body", ["    import os\n    os._exit(3)\n", "    import os, signal\n    os.kill(os.getpid(), signal.SIGKILL)\n"])
async def test_a_process_that_ends_fails_its_calls(start: Start, body: str) -> None:
    worker = await start(HEAD + body)
    with pytest.raises(BotError, match="process ended"):
        await call(worker)
    assert worker.dead


async def test_a_bot_that_takes_too_much_memory_is_told_so(start: Start) -> None:
    worker = await start(HEAD + "    x = bytearray(2 << 30)\n    ctx.reply_text(str(len(x)))\n")
    with pytest.raises(OutOfMemory):
        await call(worker)


async def test_a_flood_of_output_is_kept_in_part_and_holds_nobody_up(start: Start, lines: Lines) -> None:
    worker = await start(HEAD + "    for n in range(50_000):\n        print('x' * 20)\n    ctx.reply_text('done')\n")
    assert (await call(worker, 10))["replies"][0]["text"] == "done"
    assert sum(len(text) for level, text in lines if level == "print") < 100_000


@pytest.mark.promise("P4")
async def test_garbage_on_the_socket_ends_the_process(start: Start) -> None:
    worker = await start(
        "import os, sys\n" + HEAD + "    os.write(int(sys.argv[1]), b'\\xff' * 100)\n    import asyncio\n    await asyncio.sleep(5)\n"
    )
    with pytest.raises(ProtocolViolated):
        await call(worker)
    assert worker.dead


@pytest.mark.parametrize(
    "body",
    ["bot = 1 +\n", "raise SystemExit(0)\n", "x = 1\n", "from loquat import Bot\na, b = Bot(), Bot()\n", "import nothing_of_the_kind\n"],
)
async def test_a_bot_that_does_not_load_says_why(start: Start, body: str) -> None:
    with pytest.raises(CallFailed) as failed:
        await start(body)
    assert isinstance(failed.value, DoesNotStart)


@pytest.mark.promise("P8")
async def test_a_bots_environment_holds_nothing_of_ours(start: Start) -> None:
    worker = await start("import os\n" + HEAD + "    ctx.reply_text(','.join(sorted(os.environ)))\n")
    names = set((await call(worker))["replies"][0]["text"].split(","))
    assert names <= {"HOME", "LANG", "LC_CTYPE", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
