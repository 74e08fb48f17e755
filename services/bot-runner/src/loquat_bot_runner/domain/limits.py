"""What a project's bot may take of this machine: limits as data, and which of them can be chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from loquat_common.bounds import OutOfBounds, changed
from loquat_sandbox import Limits


@dataclass(frozen=True, slots=True)
class BotLimits:
    """Of one project, or a bound of what can be chosen. The first four are of a call, the others of its process."""

    call_seconds: float = 10
    processor_seconds: float = 5
    output_bytes: int = 64 << 10
    messages: int = 50
    memory_bytes: int = 256 << 20
    disk_bytes: int = 16 << 20
    open_files: int = 128
    threads: int = 64

    @property
    def of_process(self) -> Limits:
        """As the sandbox takes them. A file may be as large as the disk that it lies on."""
        return Limits(
            memory=self.memory_bytes, file_size=self.disk_bytes, files=self.open_files, processes=self.threads, temporary=self.disk_bytes
        )


LEAST: Final = BotLimits(
    call_seconds=1,
    processor_seconds=0.5,  # half a second is what an import of many modules takes
    output_bytes=4 << 10,
    messages=1,
    memory_bytes=64 << 20,  # an interpreter with the SDK and a database connection has 30
    disk_bytes=1 << 20,
    open_files=32,
    threads=8,  # asyncio's own pool has as many as there are processors and four
)
MOST: Final = BotLimits(
    call_seconds=300,
    processor_seconds=300,
    output_bytes=1 << 20,
    messages=50,  # what the platform stores with one result
    memory_bytes=4 << 30,
    disk_bytes=1 << 30,
    open_files=1024,
    threads=256,
)
"""Of every installation; an operator's own bounds are lower."""


def chosen(before: Mapping[str, float], change: Mapping[str, float | None], plan: BotLimits, most: BotLimits) -> dict[str, float]:
    """What a project has chosen after a change: only that, so that another plan holds for the rest. None in a change: as the plan has it again.

    Raises:
        OutOfBounds: a number cannot be chosen, or the processor's time would be longer than the call.
    """
    wanted = {name: value for name, value in change.items() if value is not None}
    after = {name: value for name, value in {**before, **wanted}.items() if change.get(name, value) is not None}
    changed(plan, wanted, LEAST, most)
    if "processor_seconds" in wanted:
        _together(replace(in_force(after, plan, most), processor_seconds=wanted["processor_seconds"]))
    return after


def _together(limits: BotLimits) -> None:
    if limits.processor_seconds > limits.call_seconds:
        raise OutOfBounds("processor_seconds", f"{limits.processor_seconds:g} is longer than a call may take ({limits.call_seconds:g})")


def in_force(chosen: Mapping[str, float], plan: BotLimits, most: BotLimits) -> BotLimits:
    """The plan's, but for what was chosen and is still within this installation's bounds. No call has more of the processor's time than of its own."""
    highest = asdict(most)
    wanted: dict[str, Any] = {**asdict(plan), **{name: value for name, value in chosen.items() if name in highest}}
    limits = BotLimits(**{name: min(value, highest[name]) for name, value in wanted.items()})
    return replace(limits, processor_seconds=min(limits.processor_seconds, limits.call_seconds))


def within(name: str, limits: BotLimits, least: BotLimits, most: BotLimits) -> None:
    """Whether all of them lie between these, and no call ends before its processor's time; `name` is whose they are.

    Raises:
        OutOfBounds: one does not.
    """
    try:
        _together(changed(limits, asdict(limits), least, most))
    except OutOfBounds as error:
        raise OutOfBounds(error.field, f"{name}: {error.field}: {error}") from None
