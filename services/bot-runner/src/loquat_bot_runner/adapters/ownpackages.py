"""What the platform itself has in a bot's process: the SDK, and what that needs. No bot's packages take its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import PurePosixPath
from typing import Final

from loquat_bot_runner.domain.packages import normalized

_ROOTS: Final = ("loquat-bot-sdk", "loquat-sandbox")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_MODULES: Final = frozenset({"loquat", "loquat_sandbox"})


@dataclass(frozen=True, slots=True)
class OwnPackages:
    """Versions by normalized name, and the names of modules."""

    versions: dict[str, str]
    modules: frozenset[str]


def own_packages() -> OwnPackages:
    """Of the interpreter that runs this, which is that of the bots. Reads some files."""
    found: dict[str, Distribution] = {}
    waiting: list[str] = [*_ROOTS]
    while waiting:
        name = normalized(waiting.pop())
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # wanted elsewhere only, on another system say
            continue
        waiting += _needs(found[name])
    modules = {module for one in found.values() for module in _modules(one)}
    return OwnPackages({name: one.version for name, one in found.items()}, _MODULES | modules)


def _needs(one: Distribution) -> Iterator[str]:
    for wanted in one.requires or ():
        if "extra ==" not in wanted and (name := _NAME.match(wanted)) is not None:
            yield name[0]


def _modules(one: Distribution) -> Iterator[str]:
    for file in one.files or ():
        module, _, kind = PurePosixPath(file).parts[0].partition(".")
        if module.isidentifier() and not kind.endswith(("dist-info", "data", "pth")) and not module.startswith("__"):
            yield module
