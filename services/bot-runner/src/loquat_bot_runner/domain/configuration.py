"""Which configuration a bot takes: what it declares with `bot.config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Setting:
    """A declared key: its type by Python's name, and whether null is one of its values. `default` is for people: as JSON, cut where it is long."""

    key: str
    kind: str
    nullable: bool = False
    help: str = ""
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a key or its value, and what to do."""

    key: str
    detail: str
    advice: str


_KINDS: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "float": (int, float), "bool": bool, "list": list, "dict": dict}


def known_kind(kind: str) -> bool:
    """Whether it is a type that a key may have."""
    return kind in _KINDS


def flaw(declared: Mapping[str, Setting], key: str, value: Any) -> Flaw | None:
    """What is wrong with it; None: nothing, or the bot declares nothing and takes all."""
    if not declared:
        return None
    if (setting := declared.get(key)) is None:
        known = ", ".join(sorted(declared))
        return Flaw(key, f"the bot declares no key {key!r}", f"it declares: {known}. Or declare it: bot.config({key!r}, ...)"[:1000])
    if _fits(setting, value):
        return None
    wanted = f"{setting.kind}{' or null' if setting.nullable else ''}"
    return Flaw(key, f"the value of {key!r} is no {wanted}", f"give a {wanted}, as the bot declares it")


def flaws(declared: Mapping[str, Setting], given: Mapping[str, Any]) -> list[Flaw]:
    """Of all that is set."""
    return [found for key, value in sorted(given.items()) if (found := flaw(declared, key, value)) is not None]


def _fits(setting: Setting, value: Any) -> bool:
    if value is None:
        return setting.nullable
    if isinstance(value, bool):
        return setting.kind == "bool"
    return isinstance(value, _KINDS.get(setting.kind, object))
