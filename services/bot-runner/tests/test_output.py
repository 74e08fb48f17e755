"""What a process prints comes on the loop that the service runs on, and its pipe is closed by its owner alone."""

from __future__ import annotations

import asyncio
import io
import os

import uvloop
from loquat_bot_runner.adapters.output import Output


def test_output_is_read_as_it_comes_and_to_its_end() -> None:
    async def read() -> list[bytes]:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        with io.FileIO(reading, "rb") as pipe:
            output = Output(pipe)
            os.write(writing, b"one two")
            got = [await output.read(3)]
            late = asyncio.create_task(output.read(9))
            got.append(await late)
            late = asyncio.create_task(output.read(9))
            await asyncio.sleep(0)
            os.write(writing, b"three")
            got.append(await late)
            os.close(writing)
            return [*got, await output.read(9)]

    assert uvloop.run(read()) == [b"one", b" two", b"three", b""]


def test_a_read_that_is_given_up_leaves_no_watch_behind() -> None:
    async def given_up() -> bool:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        with io.FileIO(reading, "rb") as pipe:
            task = asyncio.create_task(Output(pipe).read(9))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            os.close(writing)
            return asyncio.get_running_loop().remove_reader(reading)

    assert not uvloop.run(given_up())
