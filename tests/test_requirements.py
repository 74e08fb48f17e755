"""The manifest and the tests agree, both ways."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from tests.requirements import PROMISES

ROOT = Path(__file__).resolve().parents[1]


def marks() -> dict[str, list[str]]:
    """The tests that carry `@pytest.mark.promise(...)`, by promise. Found by reading, so that a test cannot hide by not being collected."""
    found: dict[str, list[str]] = defaultdict(list)
    for folder in ("libs", "services", "tools", "tests"):
        for file in (ROOT / folder).rglob("test_*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "promise":
                    found[str(ast.literal_eval(node.args[0]))].append(f"{file.relative_to(ROOT)}:{node.lineno}")
    return found


def test_every_promise_has_tests_and_no_test_names_another() -> None:
    found = marks()
    assert sorted(found) == sorted(PROMISES), {p: found.get(p) for p in set(found) ^ set(PROMISES)}
    assert all(len(places) >= 2 for places in found.values()), {p: places for p, places in found.items() if len(places) < 2}


def test_the_architecture_page_makes_the_promises_of_the_manifest() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert all(f"**{number}**" in page for number in PROMISES)
