"""Tools that a version says it has (`@bot.tool`), for language models and for people. A stranger's word: its SDK need not be ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from loquat.tools import LARGEST_TOOL, MOST_TOOLS
from loquat.values import DEEPEST, as_json

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")  # as the SDK has it


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that can be called by name; `parameters` is a JSON schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


def flaw(tools: Sequence[Tool]) -> str | None:
    """What of them cannot be kept or shown; None: nothing."""
    if len(tools) > MOST_TOOLS:
        return f"it declares {len(tools)} tools; {MOST_TOOLS} are the limit"
    known = set[str]()
    for tool in tools:
        if not _NAME.fullmatch(tool.name):
            return f"a tool's name has 1 to 64 plain letters, digits, hyphens or underscores, unlike {tool.name[:64]!r}"
        if tool.name in known:
            return f"two of its tools are called {tool.name!r}"
        known.add(tool.name)
        if tool.parameters.get("type") != "object":
            return f"the parameters of its tool {tool.name!r} are no JSON schema of an object"
        try:
            as_json([tool.description, dict(tool.parameters)], f"its tool {tool.name!r}", LARGEST_TOOL, ValueError, deepest=DEEPEST)
        except ValueError as error:
            return str(error)
    return None
