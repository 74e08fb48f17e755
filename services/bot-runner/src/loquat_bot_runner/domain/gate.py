"""What speaks against a deployment."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from loquat_bot_runner.domain import tools as toolbox
from loquat_bot_runner.domain.configuration import Setting, flaws, known_kind
from loquat_bot_runner.domain.schedules import Declared
from loquat_bot_runner.domain.tools import Tool

INITIAL: Final = "unstructured"
"""The state in which every conversation opens: a bot need not name it."""
MOST_STATES: Final = 500
"""Of a version: all of them stand in each list of versions."""
_MOST_NEEDED, _MOST_SETTINGS = 500, 500  # as the SDK has it
_LONGEST_STATE, _LONGEST_NAME, _LONGEST_KEY, _LONGEST_HELP = 60, 63, 100, 1_000  # characters


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a version says of itself when it is loaded: states, tables with the columns that it cannot do without, keys of its configuration, schedules, tools."""

    states: tuple[str, ...]
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    settings: Mapping[str, Setting] = field(default_factory=dict[str, Setting])
    schedules: tuple[Declared, ...] = ()
    tools: tuple[Tool, ...] = ()


def overstated(loaded: Loaded) -> str | None:
    """What of it is more than a bot may declare, or cannot be kept; None: nothing. A version's own word: the SDK need not have made it."""
    names = [*loaded.needs, *(c for columns in loaded.needs.values() for c in columns)]
    for what, found, most, longest in (
        ("states", loaded.states, MOST_STATES, _LONGEST_STATE),
        ("tables and columns that it needs", names, _MOST_NEEDED, _LONGEST_NAME),
        ("keys of its configuration", [*loaded.settings], _MOST_SETTINGS, _LONGEST_KEY),
    ):
        if len(found) > most:
            return f"it declares {len(found)} {what}; {most} are the limit"
        if (odd := next((n for n in found if not 1 <= len(n) <= longest or "\0" in n), None)) is not None:
            return f"{what}: a name has 1 to {longest} characters and no NUL, unlike {odd[:longest]!r}"
    for setting in loaded.settings.values():
        told = (setting.help, setting.default or "")
        if not known_kind(setting.kind) or any(len(words) > _LONGEST_HELP or "\0" in words for words in told):
            return f"the key {setting.key!r} of its configuration is not described as it should be"
    return toolbox.flaw(loaded.tools)


@dataclass(frozen=True, slots=True)
class Objection:
    """A reason not to deploy, and what to do. `states`: conversations by state; `columns`: what a table lacks, nothing if there is no table."""

    code: str
    detail: str
    advice: str
    trace: str | None = None
    states: Mapping[str, int] = field(default_factory=dict[str, int])
    table: str | None = None
    columns: tuple[str, ...] = ()


def does_not_load(error: str, trace: str) -> Objection:
    """The code cannot be imported."""
    advice = "`loquat bot check` loads it as the platform does"
    if trace.rstrip().rpartition("\n")[2].startswith("ModuleNotFoundError"):
        advice = "if it is a package, name it in requirements.txt and write requirements.lock with `loquat bot lock`; else put its file beside bot.py"
    return Objection("does_not_load", error, advice, trace or None)


def not_installable(error: str) -> Objection:
    """What its lock names cannot be installed."""
    return Objection("packages_refused", error, "mend requirements.txt and write requirements.lock with `loquat bot lock`")


def objections(
    loaded: Loaded, in_use: Mapping[str, int], there: Mapping[str, Collection[str]], configured: Mapping[str, Any]
) -> Iterator[Objection]:
    """Of a version that loads.

    States that open conversations are in and that it does not declare, tables and columns that are not there, configuration that it does not take.
    """
    unknown = {state: count for state, count in in_use.items() if state != INITIAL and state not in loaded.states}
    if unknown:
        shown = ", ".join(f"{state} ({count})" for state, count in sorted(unknown.items(), key=lambda s: (-s[1], s[0]))[:10])
        yield Objection(
            "states_missing",
            f"open conversations are in states that it does not declare: {shown}{', ...' if len(unknown) > 10 else ''}",  # noqa: PLR2004
            "declare them, or answer them with @bot.unknown_state and deploy with force",
            states=unknown,
        )
    for table, columns in loaded.needs.items():
        if table not in there:
            yield Objection("table_missing", f"it needs the table {table!r}, which is not there", "create it first", table=table)
        elif lacking := tuple(c for c in columns if c not in there[table]):
            names = ", ".join(map(repr, lacking))
            yield Objection(
                "column_missing",
                f"it needs columns of {table!r} that are not there: {names}",
                "add them first",
                table=table,
                columns=lacking,
            )
    for flaw in flaws(loaded.settings, configured):
        advice = f"remove it with DELETE .../bot/configuration/{flaw.key}, or {flaw.advice}"
        yield Objection("configuration_refused", f"the configuration does not fit: {flaw.detail}", advice)
