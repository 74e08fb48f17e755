"""The functions of a bot: where they stand, and whether they can be called as they will be."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

Function = Callable[..., Awaitable[None]]


def where(function: object) -> str:
    """The file, as it is imported, and the line: `bot.py, line 7`."""
    code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
    if code is None:
        return "an unknown place"
    file: str = code.co_filename  # not a Path: a start asks this of every handler, and paths take 2 ms for twenty
    inside = [file.removeprefix(f"{p}/") for p in sys.path if p and file.startswith(f"{p}/")]
    return f"{min(inside, key=len, default=file.rpartition('/')[2])}, line {code.co_firstlineno}"


def name(function: object) -> str:
    """What it is called."""
    return str(getattr(function, "__name__", type(function).__name__))


def check(function: object, *shapes: str, named: Iterable[str] = ()) -> int:
    """Which of the shapes fits, such as "ctx, image" (that many arguments by position); `named` are given by name besides.

    Raises:
        TypeError: none does, or it is not async. With file and line.
    """
    called = " or ".join(f"`async def {name(function)}({shape})`" for shape in shapes)
    if not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))):  # noqa: B004  (not whether: how)
        raise TypeError(f"{where(function)}: a handler is {called}")
    signature = inspect.signature(function)  # pyright: ignore[reportArgumentType]  (a coroutine function is callable)
    for index, shape in enumerate(shapes):
        first, *more = shape.split(", ")
        by_position = [first, *(p for p in more if p not in named)]
        try:
            signature.bind(*by_position, **dict.fromkeys(named))
        except TypeError:
            continue
        return index
    raise TypeError(f"{where(function)}: a handler is {called}, not `{name(function)}{signature}`")


class Once:
    """Names that are given once."""

    def __init__(self) -> None:
        self._taken: dict[object, object] = {}

    def take(self, key: object, what: str, function: object) -> None:
        """Notes a function under a key.

        Raises:
            ValueError: there is one already. With file and line of both.
        """
        if (first := self._taken.get(key)) is not None:
            raise ValueError(f"{where(function)}: {what} already: {name(first)}, {where(first)}")
        self._taken[key] = function


def checked_name(what: str, given: Any, longest: int, hint: str) -> str:
    """A name of 1 to `longest` characters.

    Raises:
        TypeError: it is none. A function there means that the decorator's parentheses were forgotten.
    """
    if isinstance(given, str) and 1 <= len(given) <= longest:
        return given
    if callable(given):
        raise TypeError(f"{where(given)}: write {hint}")
    raise TypeError(f"{what} is a text of 1 to {longest} characters, not {given!r}")
