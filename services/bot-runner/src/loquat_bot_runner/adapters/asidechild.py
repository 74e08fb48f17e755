"""The process of `aside`: reads one question from stdin, answers on stdout. What it is given is a stranger's."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from loquat_bot_runner.domain.bundle import BundleRefused, checked
from loquat_bot_runner.domain.difference import difference

_MEMORY: Final = 2 << 30  # bytes of address space: the tree of a megabyte of brackets takes some 300 MB
_PROCESSOR: Final = 20  # seconds


def _check(files: dict[str, str]) -> Any:
    try:
        return {"version": checked(files)}
    except BundleRefused as refused:
        return {"flaws": [asdict(flaw) for flaw in refused.flaws]}


def _diff(old: dict[str, str], new: dict[str, str]) -> Any:
    return [asdict(change) for change in difference(old, new)]


_QUESTIONS: Final[dict[str, Callable[..., Any]]] = {"check": _check, "diff": _diff}


def main() -> None:
    """One question: its name, and its arguments."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_PROCESSOR, _PROCESSOR))
    name, arguments = json.load(sys.stdin)
    json.dump(_QUESTIONS[name](*arguments), sys.stdout)


if __name__ == "__main__":
    main()
