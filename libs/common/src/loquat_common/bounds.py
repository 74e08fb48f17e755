"""Numbers that can be chosen within bounds: limits as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)
else:
    T = TypeVar("T")


class OutOfBounds(ValueError):
    """A number that cannot be chosen: `field`, and why in the text."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.field = field


def changed(chosen: T, change: Mapping[str, float], least: T, most: T) -> T:
    """`chosen`, a dataclass of numbers, with the change.

    Raises:
        OutOfBounds: a field is below the least or above the most.
    """
    lowest, highest = asdict(least), asdict(most)
    for name, value in change.items():
        if not lowest[name] <= value <= highest[name]:
            raise OutOfBounds(name, f"{value:g} is not possible: {lowest[name]:g} to {highest[name]:g} are")
    return replace(chosen, **change)
