"""`loquat up`."""

from __future__ import annotations

import asyncio
import contextlib
import signal

from loquat_embedded.datadir import ClusterFailed
from loquat_embedded.kafka import KafkaFailed, NoKafka
from loquat_embedded.postgres import NoPostgres, PortBusy
from pydantic import ValidationError
from rich.console import Console, RenderableType

from loquat_cli.errors import Trouble
from loquat_cli.logfiles import last_lines
from loquat_cli.process import Process
from loquat_cli.settings import StackSettings
from loquat_cli.show import console, plain, program, table
from loquat_cli.stack import Stack


class WrongSettings(Trouble):
    """The environment says something that cannot be."""


class Voice:
    """Speaks to the terminal. A terminal that is gone must not stop the platform, nor its orderly end."""

    def __init__(self, out: Console) -> None:
        self._out = out

    def say(self, *what: RenderableType) -> None:
        """Prints, if somebody is there."""
        with contextlib.suppress(OSError):
            for each in what:
                self._out.print(each)


class Stop:
    """Ctrl-C, SIGTERM and the terminal's end: the first asks for an orderly stop, the second for a quick one."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._main = asyncio.current_task()
        self._asked = False
        self.stack: Stack | None = None

    def install(self) -> None:
        """Listens to the signals."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        if not self._asked and self._main is not None:
            self._asked = True
            self._main.cancel()
            self._voice.say("stopping; once more to stop at once")
        elif self.stack is not None:
            self.stack.hurry()


async def up() -> None:
    """Start everything on this machine and stay until Ctrl-C."""
    voice = Voice(console())
    stop = Stop(voice)
    stop.install()
    try:
        await _run(voice, stop)
    except asyncio.CancelledError:
        voice.say("stopped")
    except (ClusterFailed, KafkaFailed, NoKafka, NoPostgres, PortBusy) as error:
        raise Trouble(str(error)) from None


async def _run(voice: Voice, stop: Stop) -> None:
    stack = Stack(_settings(), tell=lambda stage: voice.say(f"[dim]{stage} ...[/]"), died=lambda process: _died(voice, stack, process))
    stop.stack = stack
    async with stack:
        _show(voice, stack)
        await asyncio.Event().wait()


def _died(voice: Voice, stack: Stack, process: Process) -> None:
    """Says it at the first death and at every fifth of a crash loop, then with its last words."""
    loop = process.state == "crash loop" and process.deaths % 5 == 0
    if loop or process.state == "failed" or process.deaths == 1:
        voice.say(_obituary(process))
    if (loop or process.state == "failed") and stack.is_up:
        voice.say(*(f"  [dim]{plain(line)}[/]" for line in last_lines(stack.home.log(process.name), 5)))


def _settings() -> StackSettings:
    try:
        return StackSettings()
    except ValidationError as error:
        wrong = [f"LOQUAT_{'__'.join(str(p) for p in e['loc']).upper()}: {e['msg']}" for e in error.errors(include_input=False)]
        raise WrongSettings("these settings cannot be used:\n  " + "\n  ".join(wrong)) from None


def _obituary(process: Process) -> str:
    name, end = plain(process.name), plain(process.last_end)
    if process.state == "failed":
        return f"[bold red]{name} does not run any more[/] ({end}); the others go on"
    if process.state == "crash loop":
        return f"[bold red]{name} keeps dying[/] ({end}, {process.deaths} times in a row); it is tried again"
    return f"[yellow]{name} ended[/] ({end}); it is started again"


def _show(voice: Voice, stack: Stack) -> None:
    simulator = f"{stack.simulator}/"
    rows = [
        ("Talk to the demo bot", simulator),
        ("REST API, webhook", stack.gateway),
        ("Description of the API", f"{stack.gateway}/openapi.json"),
        ("Owner, API key", stack.home.owner_file),
        ("Logs", stack.logs),
    ]
    voice.say("", table(("[bold green]Loquat is up[/]", ""), rows))
    voice.say(f'\nTry [bold]{plain(program())} say "hello"[/] in another terminal. Ctrl-C stops everything.')
