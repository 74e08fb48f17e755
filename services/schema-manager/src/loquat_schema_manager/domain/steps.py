"""What a change comes to: statements, each with the lock it takes, what it costs, and what is looked at before it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

from loquat_rest.names import LONGEST

Lock = Literal["SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "ACCESS EXCLUSIVE"]
BLOCKS: Final[dict[Lock, Literal["nothing", "writes", "everything"]]] = {
    "SHARE UPDATE EXCLUSIVE": "nothing",
    "SHARE": "writes",
    "SHARE ROW EXCLUSIVE": "writes",
    "ACCESS EXCLUSIVE": "everything",
}
"""What others wait with while the lock is held."""


@dataclass(frozen=True, slots=True)
class Check:
    """Rows that stand in a statement's way. `count` is a query of one number; `sample` one of up to three texts.

    `title` says it with `{n}` for the number. `unless_forced`: nothing would fail, but something would be lost.
    """

    code: str
    title: str
    count: str
    sample: str | None = None
    column: str | None = None
    unless_forced: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One statement. `tables` were there before and are locked with `lock`; `counted` is the table whose rows it touches.

    `becomes`: the name of its table afterwards, where that is another one.
    """

    sql: str
    tables: tuple[str, ...] = ()
    lock: Lock | None = None
    rewrites: bool = False
    scans: bool = False
    counted: str | None = None
    checks: tuple[Check, ...] = ()
    becomes: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The statements of a change and those that undo it (in their order), or why nothing does. `tables`: its tables' names after it."""

    steps: tuple[Step, ...]
    reverse: tuple[Step, ...]
    tables: tuple[str, ...]
    irreversible: str | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """Above these, a statement that writes or reads every row is refused unless it is forced. Bytes with indexes."""

    rewrite_rows: int = 1_000_000
    rewrite_bytes: int = 256 << 20
    scan_rows: int = 5_000_000
    scan_bytes: int = 1 << 30
    count_bytes: int = 64 << 20
    """Up to this size rows are counted (0.1 s); above they are estimated."""

    def too_long(self, step: Step, rows: int, size: int) -> bool:
        """Whether others would wait too long."""
        rewrite = step.rewrites and (rows > self.rewrite_rows or size > self.rewrite_bytes)
        return rewrite or (step.scans and (rows > self.scan_rows or size > self.scan_bytes))


def pick(taken: Collection[str], table: str, columns: Collection[str], suffix: str) -> str:
    """A free name such as `orders_customer_idx`, as PostgreSQL itself would make it."""
    number = 0
    while True:
        tail = f"_{suffix}{number or ''}"
        stem = "_".join((table, *columns)).encode()[: LONGEST - len(tail)].decode(errors="ignore")
        if (name := stem + tail) not in taken:
            return name
        number += 1
