"""`ctx.config`: what the owner sets without a deployment, and what a bot declares of it. `ctx.secrets`: what nobody is shown."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from loquat.values import as_json

MOST_SETTINGS: Final = 500
LARGEST_SETTING: Final = 16 << 10
"""Bytes of a value as JSON."""
NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")
"""Of a key of the configuration, and of a secret."""
TYPES: Final[Mapping[str, type]] = {t.__name__: t for t in (str, int, float, bool, list, dict)}
MISSING: Final[Any] = object()
"""No default."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A key that a bot declares. `kind` is one of `TYPES`; `default` is MISSING if it has none."""

    key: str
    kind: str
    default: Any = MISSING
    help: str = ""


def setting(key: Any, default: Any, kind: type | None, help_: str) -> Setting:
    """A declaration, checked.

    Raises:
        TypeError, ValueError: it is none. The text says what would be.
    """
    if not isinstance(key, str) or not NAME.fullmatch(key):
        raise TypeError(f"a key of the configuration has 1 to 100 letters, digits, dots, hyphens or underscores, unlike {key!r}"[:200])
    if kind is None and (default is MISSING or default is None):
        raise TypeError(f"bot.config({key!r}) needs a default or a type, such as type=str")
    named = kind.__name__ if kind is not None else type(default).__name__
    if named not in TYPES or (kind is not None and TYPES[named] is not kind):
        raise TypeError(f"bot.config({key!r}): a type is one of {', '.join(TYPES)}, not {named}")
    if default is not MISSING and default is not None:
        if not fits(named, default):
            raise TypeError(f"bot.config({key!r}): the default {default!r} is no {named}"[:200])
        as_json(default, f"the default of {key!r}", LARGEST_SETTING, ValueError)
    return Setting(key, named, default, help_)


def fits(kind: str, value: Any) -> bool:
    """Whether a value is of a declared type; a whole number is a float, too."""
    if isinstance(value, bool):
        return kind == "bool"
    return isinstance(value, (int, float) if kind == "float" else TYPES[kind])


class Config(Mapping[str, Any]):
    """What is set, and what the bot declares a default for. A change holds from the next event on."""

    def __init__(self, declared: Mapping[str, Setting], given: Mapping[str, Any]) -> None:
        self._declared, self._given = declared, given

    def __getitem__(self, key: str) -> Any:
        declared = self._declared.get(key)
        if key in self._given:
            value = self._given[key]
            if declared is not None and not fits(declared.kind, value) and not (value is None and declared.default is None):
                raise TypeError(f"the configuration's {key!r} is no {declared.kind}: set it anew")
            return value
        if declared is not None and declared.default is not MISSING:
            return copy.deepcopy(declared.default)
        if declared is None and self._declared:
            raise KeyError(f"{key!r} is no key of this bot's configuration: declare it with bot.config({key!r}, ...)")
        raise KeyError(f"{key!r} is not set in the bot's configuration")

    def __contains__(self, key: object) -> bool:
        return key in self._given or (key in self._declared and self._declared[str(key)].default is not MISSING)

    def __iter__(self) -> Iterator[str]:
        defaults = [k for k, d in self._declared.items() if d.default is not MISSING and k not in self._given]
        return iter([*self._given, *defaults])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"Config({', '.join(self)})"


class Secrets(Mapping[str, str]):
    """Secrets by name, as the owner has set them. Shown, they are their names; in the bot's log their values are blotted out."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> str:
        if name not in self._values:
            raise KeyError(f"there is no secret {name!r}: set it with PUT .../bot/secrets/{name}")
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Secrets({', '.join(sorted(self._values))})"
