"""The reference of the SDK as a page, from its own docstrings and signatures: `docs/sdk.md`, by `make docs`."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Final

import loquat
from loquat import replies, testing
from loquat.context import Log
from loquat.database import Database
from loquat.messages import Message
from loquat.outside import Outside
from loquat.timers import Timers
from loquat.web import Http, Request

_ATTRIBUTES: Final[dict[str, type]] = {
    "event": Message,
    "contact": loquat.Contact,
    "conversation": loquat.Conversation,
    "db": Database,
    "pool": Outside,
    "memory": loquat.Memory,
    "timers": Timers,
    "config": loquat.Config,
    "secrets": loquat.Secrets,
    "http": Http,
    "media": loquat.Files,
    "tools": loquat.Tools,
    "log": Log,
}
"""What `ctx` has besides its own methods."""
_AFTER_HTTP: Final = (Request, loquat.Answer)
_OURS: Final = {
    "Bot": "declared handler entering gathers rule find",
    "Context": "entering result question time_out",
    "ScheduleContext": "result",
    "Database": "used commit close",
    "Contact": "changes",
    "Timers": "changes of_question",
    "Tool": "read function types",
    "Reply": "wire",
    "BotTester": "fire_due",
    "replies": "joined",
}
"""What is the worker's and the tester's, not a bot's."""
_BEGIN: Final = """# Reference of the bot SDK

Made from the code by `make docs`. How a bot is written, with examples that are tests: [the SDK's README](../libs/bot-sdk/README.md). Names are those of
`from loquat import ...` unless a section says otherwise.
"""
_SECTION: Final = re.compile(r"^(Raises|Args):\n((?: {4}.*\n?)+)", re.MULTILINE)
_NOISE: Final = ("Callable[", "Finding[")  # what a decorator gives back is what it was given


def page() -> str:
    """The whole reference, in Markdown. The same code gives the same page."""
    public: dict[str, Any] = {name: getattr(loquat, name) for name in loquat.__all__}
    told: set[str] = {"replies", "Context", "ScheduleContext", "Bot"}
    parts = [_BEGIN, *_class("Bot", loquat.Bot), *_class("Context", loquat.Context), *_attributes()]
    for attribute, kind in _ATTRIBUTES.items():
        if kind is not Message:
            parts += _class(f"ctx.{attribute}: {kind.__name__}", kind)
            told.add(kind.__name__)
    for kind in _AFTER_HTTP:
        parts += _class(kind.__name__, kind)
        told.add(kind.__name__)
    parts += _class("ScheduleContext", loquat.ScheduleContext)
    classes = {n: v for n, v in public.items() if n not in told and isinstance(v, type)}
    messages = {n: v for n, v in classes.items() if issubclass(v, Message)}
    errors = {n: v for n, v in classes.items() if issubclass(v, Exception)}
    parts += ["## Messages\n", "What `ctx.event` is. All have what `Message` has.\n", *_table(messages)]
    parts += [
        "## Replies\n",
        "`from loquat import replies`: made here, said with `ctx.reply`; the same as `ctx.reply_text` and its like.\n",
    ]
    for name, function in vars(replies).items():
        if inspect.isfunction(function) and function.__module__ == replies.__name__ and not _hidden("replies", name):
            parts += _member(name, function)
    for name, kind in classes.items():
        if name not in messages and name not in errors:
            parts += _class(name, kind)
    parts += ["## Errors\n", *_table(errors)]
    parts += _class("`from loquat.testing import BotTester`", testing.BotTester)
    return "\n".join(parts).rstrip() + "\n"


def _attributes() -> Iterator[str]:
    yield "| attribute | |\n|---|---|"
    for name, kind in _ATTRIBUTES.items():
        first = _text(kind).splitlines()[0]
        yield f"| `ctx.{name}` | `{kind.__name__}`: {_cell(first)} |"
    yield "| `ctx.now` | `datetime`: when the call began, in UTC |\n"


def _class(title: str, kind: type) -> Iterator[str]:
    yield f"## {title}\n"
    if kind is loquat.Bot or kind is testing.BotTester:
        yield f"`{kind.__name__}{_signature(kind.__init__)}`\n"
    yield f"{_text(kind)}\n"
    if fields := _fields(kind):
        yield f"Fields: {fields}.\n"
    for name, member in vars(kind).items():
        if not _hidden(kind.__name__, name):
            yield from _member(name, member)


def _hidden(owner: str, name: str) -> bool:
    return name.startswith("_") or name in _OURS.get(owner, "").split()


def _member(name: str, member: Any) -> Iterator[str]:
    function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
    if not inspect.isfunction(function) or not function.__doc__:
        return
    if isinstance(member, property):
        returned = function.__annotations__.get("return", "")
        yield f"- **`{name}`**{f' `{returned}`' if returned else ''}"
    else:
        word = "await " if inspect.iscoroutinefunction(function) else ""
        shapes = typing.get_overloads(function) or [function]
        yield "- " + "<br>\n  ".join(f"**`{word}{name}`**`{_signature(shape)}`" for shape in shapes)
    yield "\n".join(f"  {line}".rstrip() for line in ["", *_text(function).splitlines()]) + "\n"


def _signature(function: Any) -> str:
    """Without `self`, and without what a decorator gives."""
    signature = inspect.signature(function)
    kept = [_parameter(p) for p in signature.parameters.values() if p.name not in {"self", "cls"}]
    returned = str(signature.return_annotation)
    quiet = (
        signature.return_annotation is inspect.Signature.empty or returned == "None" or returned.startswith(_NOISE) or len(returned) == 1
    )
    return str(signature.replace(parameters=kept, return_annotation=inspect.Signature.empty if quiet else _Plain(returned)))


def _parameter(parameter: inspect.Parameter) -> inspect.Parameter:
    annotated = parameter.annotation is not inspect.Parameter.empty
    default = parameter.default
    if default is not inspect.Parameter.empty and " at 0x" in repr(default):  # a marker for "not given"
        default = _Plain("...")
    return parameter.replace(annotation=_Plain(parameter.annotation) if annotated else parameter.annotation, default=default)


class _Plain(str):
    """Shown as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _fields(kind: type) -> str:
    """Of a dataclass: its own, not those of its bases."""
    if not dataclasses.is_dataclass(kind):
        return ""
    own = inspect.get_annotations(kind)
    return ", ".join(f"`{f.name}: {f.type}`" for f in dataclasses.fields(kind) if f.name in own and not _hidden(kind.__name__, f.name))


def _table(classes: dict[str, Any]) -> Iterable[str]:
    yield "| | |\n|---|---|"
    for name, kind in classes.items():
        fields = _fields(kind)
        yield f"| `{name}` | {_cell(_text(kind))}{f' {_cell(fields)}' if fields else ''} |"
    yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _text(thing: Any) -> str:
    """Its docstring; what is raised in a line."""
    return _SECTION.sub(lambda found: f"*{found[1]}:* {' '.join(found[2].split())}", inspect.cleandoc(thing.__doc__ or ""))
