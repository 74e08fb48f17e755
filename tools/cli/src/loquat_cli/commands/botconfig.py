"""`loquat bot config`."""

from __future__ import annotations

import json
from typing import Annotated, Any

from cyclopts import Parameter

from loquat_cli.botapi import BotApi, Project, place
from loquat_cli.errors import Trouble
from loquat_cli.show import console, plain, table, when

Value = Annotated[str, Parameter(allow_leading_hyphen=True)]


class NotSet(Trouble):
    """The key has no value."""


async def list_config(*, project: Project = None) -> None:
    """List what is set, and what the deployed bot takes.

    Parameters
    ----------
    project
        Id or name of the project; the demo project unless named.
    """
    async with BotApi.of(project) as api:
        found = await api.get("/configuration")
    declared, given = {d["key"]: d for d in found["declared"]}, {i["key"]: i for i in found["items"]}
    rows = list[tuple[str, ...]]()
    for key in sorted({*declared, *given}):
        takes, item = declared.get(key), given.get(key)
        own = (_type(takes), takes.get("default") or "", takes["help"]) if takes is not None else ("", "", "")
        rows.append((key, *((_shown(item["value"]), when(item["updated_at"])) if item is not None else ("", "")), *own))
    console().print(table(("KEY", "VALUE", "SET", "TYPE", "DEFAULT", "ABOUT"), rows))


async def get_config(key: str, /, *, project: Project = None) -> None:
    """Print the value of a key: a text as it is, anything else as JSON.

    Parameters
    ----------
    key
        Its name.
    project
        Id or name of the project; the demo project unless named.
    """
    async with BotApi.of(project) as api:
        items = (await api.get("/configuration"))["items"]
    for item in items:
        if item["key"] == key:
            console().print(plain(_shown(item["value"])))
            return
    raise NotSet(f"{key!r} is not set: the bot's own default holds. See `loquat bot config list`")


async def set_config(key: str, value: Value, /, *, project: Project = None, text: bool = False) -> None:
    """Set a key, from the bot's next event on.

    Parameters
    ----------
    key
        Its name.
    value
        JSON, such as 5, true or '["a", "b"]'; what is no JSON is a text.
    project
        Id or name of the project; the demo project unless named.
    text
        The value is a text, even if it looks like JSON.
    """
    async with BotApi.of(project) as api:
        made = await api.put(f"/configuration/{place(key, 'a key')}", {"value": value if text else _read(value)})
    console().print(f"{plain(made['key'])} is {plain(json.dumps(made['value'], ensure_ascii=False))}")


async def unset_config(key: str, /, *, project: Project = None) -> None:
    """Remove a key: the bot's own default holds from its next event on.

    Parameters
    ----------
    key
        Its name.
    project
        Id or name of the project; the demo project unless named.
    """
    async with BotApi.of(project) as api:
        await api.delete(f"/configuration/{place(key, 'a key')}")
    console().print(f"{plain(key)} is not set any more")


def _read(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _type(declared: dict[str, Any]) -> str:
    return f"{declared['type']} or null" if declared["nullable"] else str(declared["type"])
