"""`loquat status`."""

from __future__ import annotations

import sys

from rich.console import Console

from loquat_cli.context import Context
from loquat_cli.home import Home
from loquat_cli.look import Line, Picture, look
from loquat_cli.rest import Refused, Rest
from loquat_cli.settings import ClientSettings
from loquat_cli.show import console, plain, size, table


async def status() -> None:
    """Show services, lag, deferred events and databases."""
    out, settings = console(), ClientSettings()
    if settings.url is not None:
        async with Context.load(settings).rest() as rest:
            await _projects(out, rest)
        return
    home = Home(settings.home)
    picture = await look(home)
    if picture is None:
        out.print(f"Nothing runs in {plain(home.path)}. Start it with [bold]loquat up[/].")
        sys.exit(3)  # what init scripts say of a program that is not running
    _stack(out, home, picture)


def _stack(out: Console, home: Home, picture: Picture) -> None:
    state = picture.state
    out.print(
        f"Loquat in {plain(home.path)}: process {state['pid']}, gateway {state['gateway']}, simulator {state['simulator']}, bus {state['bus']}\n"
    )
    rows = [(p.name, p.state, p.ready, p.pid, p.restarts, p.lag, p.last_end) for p in picture.lines]
    out.print(table(("PROCESS", "STATE", "READY", "PID", "RESTARTS", "LAG", "LAST END"), rows))
    for line in picture.lines:
        _facts(out, line)
    out.print()
    if picture.waiting is None or picture.databases is None:
        out.print("[yellow]a database does not answer: deferred events and sizes are unknown[/]")
    if picture.waiting is not None:
        out.print(table(("CONSUMER", "DEFERRED", "DEAD"), [(w.consumer, w.deferred, w.dead) for w in picture.waiting]))
        out.print()
    if picture.databases is not None:
        out.print(table(("CLUSTER", "DATABASE", "SIZE"), [(d.cluster, d.name, size(d.size)) for d in picture.databases]))


def _facts(out: Console, line: Line) -> None:
    for name, value in line.facts.items():
        out.print(f"[dim]{plain(line.name)}: {plain(name)}: {plain(value)}[/]")


async def _projects(out: Console, rest: Rest) -> None:
    """Of a Loquat elsewhere: what its API tells."""
    rows: list[tuple[object, ...]] = []
    for project in await rest.all("/v1/projects"):
        try:
            ledger = await rest.get(f"/v1/projects/{project['id']}/ledger")
            counts = (ledger["waiting"], ledger["deferred"], ledger["dead"])
        except Refused:  # it is not ready, and says so in its status
            counts = ("", "", "")
        rows.append((project["id"], project["name"], project["status"], *counts))
    out.print(table(("ID", "NAME", "STATUS", "WAITING", "DEFERRED", "DEAD"), rows))
