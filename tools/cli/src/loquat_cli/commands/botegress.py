"""`loquat bot egress`."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from loquat_cli.botapi import BotApi, Project
from loquat_cli.errors import Trouble
from loquat_cli.show import console, plain, size, table, when


class NoHost(Trouble):
    """No host was named, or none that is allowed."""


async def show_egress(*, project: Project = None) -> None:
    """Show the hosts that the bot may connect to.

    Parameters
    ----------
    project
        Id or name of the project; the demo project unless named.
    """
    async with BotApi.of(project) as api:
        _show(await _hosts(api))


async def allow_egress(*hosts: str, project: Project = None) -> None:
    """Let the bot connect to more hosts, on ports 443 and 80.

    Parameters
    ----------
    hosts
        Such as api.example.com, '*.example.com' (all below, not the name itself), an address, or '*' for every public host.
    project
        Id or name of the project; the demo project unless named.
    """
    if not hosts:
        raise NoHost("which hosts? Name at least one")
    async with BotApi.of(project) as api:
        _show(await _put(api, [*dict.fromkeys([*await _hosts(api), *hosts])]))


async def deny_egress(*hosts: str, project: Project = None) -> None:
    """Let the bot connect to these hosts no more.

    Parameters
    ----------
    hosts
        As `loquat bot egress show` lists them.
    project
        Id or name of the project; the demo project unless named.
    """
    if not hosts:
        raise NoHost("which hosts? Name at least one")
    async with BotApi.of(project) as api:
        open_now, gone = await _hosts(api), {host.lower() for host in hosts}
        if strange := sorted(gone - {host.lower() for host in open_now}):
            raise NoHost(f"not among what is allowed: {', '.join(strange)}; nothing was changed. See `{api.command('egress show')}`")
        _show(await _put(api, [host for host in open_now if host.lower() not in gone]))


async def destinations_egress(*, project: Project = None, limit: Annotated[int, Parameter(alias="-n")] = 50) -> None:
    """List where the bot connected to, or wanted to, the latest first.

    Parameters
    ----------
    project
        Id or name of the project; the demo project unless named.
    limit
        How many.
    """
    async with BotApi.of(project) as api:
        items = (await api.get("/egress/destinations", {"limit": limit}))["items"]
    rows = [(when(d["last_at"]), d["host"], d["port"], d["outcome"], d["connections"], size(d["sent"]), size(d["received"])) for d in items]
    console().print(table(("LAST", "HOST", "PORT", "OUTCOME", "TIMES", "SENT", "RECEIVED"), rows))


async def _hosts(api: BotApi) -> list[str]:
    return list((await api.get("/egress"))["hosts"])


async def _put(api: BotApi, hosts: list[str]) -> list[str]:
    made: dict[str, Any] = await api.put("/egress", {"hosts": hosts})
    return list(made["hosts"])


def _show(hosts: list[str]) -> None:
    for host in hosts:
        console().print(plain(host))
    if not hosts:
        console().print("the bot may not connect to the outside")
