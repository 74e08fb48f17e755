"""`loquat bot limits`."""

from __future__ import annotations

import json
import math
from typing import Any

from loquat_cli.botapi import BotApi, Project
from loquat_cli.errors import Trouble
from loquat_cli.show import console, table


class NoLimit(Trouble):
    """That is no limit with a number."""


async def show_limits(*, project: Project = None) -> None:
    """Show what the bot may take of the machine, beside the plan's limits and how far they can be moved.

    Parameters
    ----------
    project
        Id or name of the project; the demo project unless named.
    """
    async with BotApi.of(project) as api:
        _show(await api.get("/limits"))


async def set_limits(*limits: str, project: Project = None) -> None:
    """Set limits of the bot; the others stay.

    Parameters
    ----------
    limits
        Such as call_seconds=20 memory_bytes=268435456; `loquat bot limits show` has their names.
    project
        Id or name of the project; the demo project unless named.
    """
    change = dict(_read(limit) for limit in limits)
    if not change:
        raise NoLimit("which limits? Name them, such as call_seconds=20")
    async with BotApi.of(project) as api:
        _show(await api.patch("/limits", change))


async def unset_limits(*names: str, project: Project = None) -> None:
    """Give limits the plan's values again.

    Parameters
    ----------
    names
        Of the limits, as `loquat bot limits show` has them.
    project
        Id or name of the project; the demo project unless named.
    """
    if not names:
        raise NoLimit("which limits? Name at least one")
    async with BotApi.of(project) as api:
        _show(await api.patch("/limits", dict.fromkeys(names)))


def _read(given: str) -> tuple[str, float]:
    name, _, text = given.partition("=")
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not name or isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise NoLimit(f"a limit is NAME=NUMBER, such as call_seconds=20, not {given!r}")
    return name, value


def _show(found: dict[str, dict[str, Any]]) -> None:
    columns = ("limits", "plan", "least", "most")
    rows = [(name, *(_number(found[column][name]) for column in columns)) for name in found["limits"]]
    console().print(table(("LIMIT", "NOW", "PLAN", "LEAST", "MOST"), rows))


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
