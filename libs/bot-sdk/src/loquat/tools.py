"""`@bot.tool`: functions that a language model, or a person, calls by name with arguments as JSON; and `ctx.tools`, which calls them."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast, get_type_hints

import msgspec

from loquat.handlers import name as named
from loquat.handlers import where
from loquat.values import NO_TEXT, as_json

MOST_TOOLS: Final = 64
LARGEST_TOOL: Final = 8 << 10
"""Bytes of a tool's description and parameters as JSON: all of them must fit in a frame."""
LARGEST_ARGUMENTS: Final = 64 << 10
"""Bytes of a call's arguments as JSON."""
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what language models' APIs take
_SECTION: Final = re.compile(r"(Args|Arguments|Parameters|Returns|Yields|Raises|Examples?|Notes?):")
_ARGUMENTS: Final = ("Args:", "Arguments:", "Parameters:")
_ARGUMENT: Final = re.compile(r"(\w+)(?: \([^)]*\))?: *(.*)")
_PARAM: Final = re.compile(r":param (?:[^:]* )?(\w+): *(.*)")
_AT: Final = re.compile(r" - at `\$([^`]*)`$")
_BY_POSITION: Final = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
_BY_NAME: Final = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY

Function = Callable[..., Awaitable[Any]]


class ToolRefused(ValueError):
    """There is no such tool, or its arguments are not those that it takes: the text names each. The tool was not called; a model may try again."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that can be called by name. `parameters` is a JSON schema, as the APIs of language models take it."""

    name: str
    description: str
    parameters: dict[str, Any]
    function: Function
    types: Mapping[str, Any]
    """Of each parameter, as it is annotated."""

    def read(self, arguments: Mapping[str, Any] | str) -> dict[str, Any]:
        """The arguments as the function takes them, a date as a date. They may be JSON as text.

        Raises:
            ToolRefused: they do not fit. All that is wrong is named.
        """
        given = self._plain(arguments)
        wrong = [f"{n!r} is no argument of it"[:200] for n in given if n not in self.types]
        wrong += [f"{n}: it is missing" for n in self.parameters["required"] if n not in given]
        read: dict[str, Any] = {}
        for argument in given.keys() & self.types.keys():
            try:
                read[argument] = msgspec.convert(given[argument], self.types[argument])
            except (ValueError, OverflowError) as error:  # msgspec's own is a ValueError; the calendar's limits are Python's
                at = _AT.search(str(error))
                wrong.append(f"{argument}{at[1] if at else ''}: {_AT.sub('', str(error))}")
        if wrong:
            raise ToolRefused(f"the tool {self.name!r} cannot be called like that: {'; '.join(sorted(wrong))}"[:2000])
        return read

    def _plain(self, arguments: Mapping[str, Any] | str) -> dict[str, Any]:
        """As JSON has them, whoever gives them."""
        what = f"the arguments of the tool {self.name!r}"
        try:
            found = json.loads(arguments or "{}") if isinstance(arguments, str) else msgspec.to_builtins(arguments, str_keys=True)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ToolRefused(f"{what} are no JSON: {error}"[:300]) from None
        if not isinstance(found, dict):
            raise ToolRefused(f"{what} are given by name, as a JSON object")
        plain: dict[str, Any] = json.loads(as_json(found, what, LARGEST_ARGUMENTS, ToolRefused))
        return plain


class Tools:
    """The bot's tools: to be listed for a language model, and called with what it answers."""

    def __init__(self, declared: Mapping[str, Tool], context: Any) -> None:
        self._declared, self._context = declared, context

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._declared.values())

    def __len__(self) -> int:
        return len(self._declared)

    def __getitem__(self, name: str) -> Tool:
        return self._declared[name]

    async def call(self, name: str, arguments: Mapping[str, Any] | str) -> Any:
        """Calls a tool within this handler, with its transaction, and gives what it gives, as JSON has it: a date as text, a dataclass as a dict.

        `arguments` may be a JSON object as text, as language models give it. What the tool raises comes here as it is.

        Raises:
            ToolRefused: there is no such tool, or the arguments are not those that it takes.
        """
        if (tool := self._declared.get(name)) is None:
            known = ", ".join(self._declared) or "none"
            raise ToolRefused(f"there is no tool {name!r}; there are: {known}"[:2000])
        found = await tool.function(self._context, **tool.read(arguments))
        try:
            return msgspec.to_builtins(found, str_keys=True, enc_hook=_row)
        except TypeError as error:
            raise TypeError(f"{where(tool.function)}: what {name!r} gives is no JSON: {error}") from None


def tool(function: Function) -> Tool:
    """A declaration, checked.

    Raises:
        TypeError, ValueError: it is none, with file and line.
    """
    called = named(function)
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"{where(function)}: a tool is `async def {called}(ctx, ...)`")
    if not _NAME.fullmatch(called):
        raise TypeError(f"{where(function)}: a tool's name has 1 to 64 plain letters, digits, hyphens or underscores, not {called!r}")
    parameters = [*inspect.signature(function).parameters.values()]
    if not parameters or parameters.pop(0).kind not in _BY_POSITION:
        raise TypeError(f"{where(function)}: a tool takes the context first: `async def {called}(ctx, ...)`")
    types = {p.name: _type(function, p) for p in parameters}
    about, described = _told(function)
    if unknown := described.keys() - types.keys():
        raise TypeError(f"{where(function)}: the docstring of {called!r} describes {min(unknown)!r}, which is no parameter of it")
    schema = _schema(function, parameters, types, described)
    as_json([about, schema], f"{where(function)}: the tool {called!r}", LARGEST_TOOL, ValueError)
    return Tool(called, about, schema, function, types)


def _type(function: Function, parameter: inspect.Parameter) -> Any:
    place = f"{where(function)}: the parameter {parameter.name!r}"
    if parameter.kind not in _BY_NAME:
        raise TypeError(f"{place} cannot be given by name")
    if parameter.annotation is inspect.Parameter.empty:
        raise TypeError(f"{place} needs a type, such as `{parameter.name}: str`")
    holder = type("Parameters", (), {"__annotations__": {parameter.name: parameter.annotation}})
    try:  # one by one: the context's own type may be imported for type checkers only
        return get_type_hints(holder, getattr(inspect.unwrap(function), "__globals__", {}), include_extras=True)[parameter.name]
    except (NameError, SyntaxError, TypeError, AttributeError) as error:
        raise TypeError(f"{place}: its type cannot be read: {error}") from None


def _schema(
    function: Function, parameters: list[inspect.Parameter], types: Mapping[str, Any], described: Mapping[str, str]
) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    for parameter in parameters:
        place = f"{where(function)}: the parameter {parameter.name!r}"
        try:
            (found,), more = msgspec.json.schema_components([types[parameter.name]], ref_template="#/$defs/{name}")
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(f"{place} has a type that JSON cannot give: {error}"[:500]) from None
        if clash := [n for n, one in more.items() if shared.get(n, one) != one]:
            raise TypeError(f"{place}: two types are called {clash[0]!r}")
        shared |= more
        if parameter.name in described:
            found = {**found, "description": described[parameter.name]}
        if parameter.default is not inspect.Parameter.empty:
            found = {**found, "default": _default(place, types[parameter.name], parameter.default)}
        properties[parameter.name] = found
    required = [p.name for p in parameters if p.default is inspect.Parameter.empty]
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {**schema, **({"$defs": shared} if shared else {})}


def _default(place: str, kind: Any, value: Any) -> Any:
    try:
        plain = msgspec.to_builtins(value, str_keys=True)
        msgspec.convert(plain, kind)
        msgspec.msgpack.encode(plain)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{place}: its default {value!r} does not fit: {error}"[:500]) from None
    return plain


def _told(function: Function) -> tuple[str, dict[str, str]]:
    """What a docstring says: of the function, and of each argument, under `Args:` or by `:param name:`."""
    lines = inspect.cleandoc(function.__doc__ or "").splitlines()
    about: list[str] = []
    described: dict[str, str] = {}
    section, last, indent = "", "", 0
    for line in lines:
        text, margin = line.strip(), len(line) - len(line.lstrip())
        if margin == 0 and (_SECTION.fullmatch(text) or text.startswith(":")):
            found = _PARAM.fullmatch(text)
            section, last, indent = (":param" if found else text), "", 0
        else:
            indent = indent or margin
            found = _ARGUMENT.fullmatch(text) if section in _ARGUMENTS and margin == indent else None
        if found:
            last = found[1]
            described[last] = found[2]
        elif not section:
            about.append(line)
        elif last and text:
            described[last] = f"{described[last]} {text}".strip()
    return _fit("\n".join(about).strip()), {n: _fit(text) for n, text in described.items()}


def _fit(text: str) -> str:
    return NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)


def _row(value: Any) -> Any:
    """A row of the database is a mapping, though Python does not know it as one."""
    items: Any = getattr(value, "items", None)
    if callable(items):
        return dict(cast("Any", items()))
    raise TypeError(f"no {type(value).__name__} can be")
