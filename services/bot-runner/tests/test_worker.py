"""Real worker processes: what a bot may do to itself, and no more."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from loquat_bot_runner.adapters.worker import Worker
from loquat_bot_runner.errors import (
    BotError,
    CallFailed,
    DatabaseLost,
    DoesNotStart,
    OutOfMemory,
    ProjectDatabaseAway,
    ProtocolViolated,
    TimedOut,
)
from loquat_common.bus.port import BusUnavailable
from loquat_sandbox import Level, Sandbox

from tests.bots import started
from tests.system.world import until

HEAD = "from loquat import Bot\nbot = Bot()\n\n@bot.fallback\nasync def handle(ctx):\n"
Start = Callable[[str], Awaitable[Worker]]
Lines = list[tuple[str, str]]


@pytest.fixture
def lines() -> Lines:
    return []


@pytest.fixture
async def start(sandbox: Sandbox, bundles: Path, lines: Lines) -> AsyncGenerator[Start]:
    made: list[Worker] = []

    async def run(body: str) -> Worker:
        folder = bundles / f"v{len(made)}"
        folder.mkdir()
        (folder / "bot.py").write_text(body)
        made.append(await started(sandbox, folder, lambda _call, level, text: lines.append((level, text))))
        return made[-1]

    yield run
    for worker in made:
        await worker.kill()


def call(worker: Worker, limit: float = 5.0, text: str = "hi") -> Awaitable[dict[str, Any]]:
    one = str(UUID(int=1))
    event: dict[str, Any] = {"id": one, "type": "text", "text": text, "content": {}}
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
    worker, complaints = await start(HEAD + body), list[object]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    with pytest.raises(TimedOut):
        await call(worker, 0.3)
    gc.collect()  # an error that nobody has heard is told when it goes
    loop.set_exception_handler(None)
    assert (worker.dead, complaints) == (True, [])


async def test_a_handler_that_is_only_slow_is_cancelled_and_the_process_lives(start: Start) -> None:
    worker = await start("import asyncio\n" + HEAD + "    await asyncio.sleep(60)\n")
    with pytest.raises(TimedOut):
        await call(worker, 0.2)
    assert not worker.dead


@pytest.mark.parametrize(
    ("body", "how"), [("    import os\n    os._exit(3)\n", "exit 3"), ("    import ctypes\n    ctypes.string_at(0)\n", "SIGSEGV")]
)
async def test_a_process_that_ends_fails_its_calls(start: Start, body: str, how: str) -> None:
    worker = await start(HEAD + body)
    with pytest.raises(BotError, match=f"process ended .{how}"):
        await call(worker)
    assert worker.dead


async def test_a_call_that_begins_as_the_process_ends_fails_as_one_that_it_had_begun(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = await start(HEAD + "    pass\n")
    assert worker._writer is not None

    def refuse(_data: bytes) -> None:
        raise RuntimeError("the handler is closed")  # as uvloop does

    worker._writer.transport.abort()
    monkeypatch.setattr(worker._writer, "write", refuse)
    with pytest.raises(BotError, match="process ended"):
        await call(worker)
    assert worker.dead


async def test_a_bot_that_takes_too_much_memory_is_told_so(start: Start) -> None:
    worker = await start(HEAD + "    x = bytearray(2 << 30)\n    ctx.reply_text(str(len(x)))\n")
    with pytest.raises(OutOfMemory):
        await call(worker)


async def test_a_flood_of_output_is_kept_in_part_and_ends_there(start: Start, lines: Lines) -> None:
    worker = await start(HEAD + "    while True:\n        print('x' * 20)\n")
    with pytest.raises(BotError, match="printed more than 65536 bytes"):
        await call(worker, 10)
    assert sum(len(text) for level, text in lines if level == "print") < 100_000
    assert "its output was closed" in lines[-1][1]
    assert worker.worn


async def test_each_call_may_print_its_share(start: Start, lines: Lines) -> None:
    worker = await start(HEAD + "    print('x' * 40_000)\n    ctx.reply_text('x')\n")
    for _ in range(3):
        await call(worker)
    assert not worker.worn
    assert {level for level, _ in lines} == {"print"}


async def test_who_keeps_the_processor_busy_gives_way_and_makes_way_for_a_fresh_one(start: Start) -> None:
    worker = await start(
        "import time\n" + HEAD + "    until = time.process_time() + 0.4\n    while time.process_time() < until:\n        pass\n"
    )
    answered = asyncio.ensure_future(call(worker, 30))
    while not answered.done():
        await asyncio.sleep(0.02)
        worker.watch()
    await answered
    if worker._process.level is Level.NONE:
        pytest.skip("at isolation level 0 nobody measures the processor time of bots")
    assert os.sched_getscheduler(worker.pid) == os.SCHED_IDLE
    assert worker.worn


async def test_processor_time_is_bounded_for_each_call(start: Start) -> None:
    worker = await start(HEAD + "    while True:\n        pass\n")
    if worker._process.level is Level.NONE:
        pytest.skip("at isolation level 0 nobody measures the processor time of bots")
    worker.limits = replace(worker.limits, processor_seconds=0.05)
    failed = asyncio.ensure_future(call(worker, 30))
    with pytest.raises(TimedOut, match=r"more than 0.05 s of processor time"):
        while not failed.done():
            await asyncio.sleep(0.02)
            worker.watch()
        await failed
    assert worker.dead


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
    proxies = {"HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"}
    assert names <= {"HOME", "LANG", "LC_CTYPE", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "TZ"} | proxies


@pytest.mark.promise("P4")
async def test_a_database_is_away_where_its_door_found_it_so_and_lost_where_only_the_bot_says_it(start: Start) -> None:
    body = "    if ctx.event.text == 'hi':\n        raise DatabaseAway('so it says')\n    await ctx.db.execute('SELECT 1')\n"
    worker = await start("from loquat.database import DatabaseAway\n" + HEAD + body)
    with pytest.raises(DatabaseLost, match="so it says"):
        await call(worker)
    with pytest.raises(ProjectDatabaseAway):
        await call(worker, text="really")
    with pytest.raises(DatabaseLost):
        await call(worker)


class Mute:
    """A voice whose bus is away."""

    said = 0

    async def say(self, answered: UUID, place: int, reply: dict[str, Any]) -> None:
        raise BusUnavailable(answered, place, reply)

    async def typing(self) -> None: ...


@pytest.mark.promise("P4")
async def test_what_the_platform_itself_could_not_say_is_no_fault_of_the_bots(start: Start) -> None:
    worker = await start(HEAD + "    await ctx.reply_now('x')\n")
    one: dict[str, Any] = {"id": str(UUID(int=1)), "type": "text", "text": "hi", "content": {}}
    fields: dict[str, Any] = {"event": one, "contact": {"id": one["id"]}, "conversation": {"id": one["id"], "number_id": "1"}}
    with pytest.raises(ProjectDatabaseAway):
        await worker.handled(5, Mute(), **fields, state="unstructured", version=0)


@pytest.mark.promise("P8")
async def test_a_line_that_is_printed_in_parts_is_kept_as_one_so_that_a_secret_in_it_is_whole(start: Start, lines: Lines) -> None:
    parts = "    os.write(1, b'it is s3cr')\n    await asyncio.sleep(0.05)\n    os.write(1, b'3t-of-anna\\nno end')\n"
    worker = await start("import asyncio, os\n" + HEAD + parts + "    ctx.reply_text('x')\n")
    await call(worker)

    async def kept() -> bool:
        return ("print", "it is s3cr3t-of-anna\n") in lines

    await until(kept, "the line is kept")
    await worker.kill()
    assert lines[-1] == ("print", "no end")
