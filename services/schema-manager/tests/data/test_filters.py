"""Filters: what they find on a real table, and that nothing a caller writes is ever SQL."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loquat_rest.rows import Filter
from loquat_schema_manager.adapters.rows import Rows
from loquat_schema_manager.domain import filters
from loquat_schema_manager.domain.filters import Parameters
from loquat_schema_manager.domain.values import Unfit
from loquat_schema_manager.http.rows import RowsApi
from pydantic import TypeAdapter, ValidationError

from tests.desk import Desk, open_desk
from tests.tenants import Project

FILTER: TypeAdapter[Filter] = TypeAdapter(Filter)
TABLE = "CREATE TABLE t (id int PRIMARY KEY, a text, n bigint, d numeric, ok boolean, at timestamptz, j jsonb, tags text[], c char(4))"
ROWS = """INSERT INTO t VALUES
 (1, 'Ann', 9007199254740993, 1.10, true, '2026-01-01T00:00:00Z', '{"age": 10, "name": "x", "list": [1, {"k": "v"}]}', '{a,b}', 'ab'),
 (2, 'bob', 2, 2, false, '2026-01-02T00:00:00Z', '{"age": "10", "name": "y"}', '{}', 'cd'),
 (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
 (4, '50%_\\', -5, 'NaN', true, 'infinity', '{"age": 9, "name": null}', '{b}', 'ab'),
 (5, '', 0, 0, false, '2026-01-01T00:00:01Z', '[]', '{a}', '')"""


@pytest.fixture
async def data(project: Project) -> AsyncGenerator[Desk]:
    def changed(*_told: object) -> None:
        return

    async with open_desk(project, lambda api, editors, _bus: RowsApi(Rows(editors, changed)).add_to(api)) as made:
        bot = await made.bot()
        await bot.execute(TABLE)
        await bot.execute(ROWS)
        yield made


async def ids(data: Desk, node: Any) -> list[int]:
    page = await data.good("POST", "/tables/t/query", {"filter": node, "columns": ["id"], "count": True})
    found = [r["values"]["id"] for r in page["items"]]
    assert page["count"] == len(found)
    return found


def c(column: str, op: str, value: Any = None, **more: Any) -> dict[str, Any]:
    return {"column": column, "op": op, "value": value, **more}


FOUND: list[tuple[dict[str, Any], list[int]]] = [
    (c("a", "eq", "Ann"), [1]),
    (c("a", "ne", "Ann"), [2, 4, 5]),
    (c("a", "lt", "a"), [1, 4, 5]),
    (c("a", "in", ["Ann", "", "none"]), [1, 5]),
    (c("a", "in", []), []),
    (c("a", "not_in", ["Ann", ""]), [2, 4]),
    (c("a", "like", "%n"), [1]),
    (c("a", "like", "50\\%%"), [4]),
    (c("a", "ilike", "ANN"), [1]),
    (c("n", "like", "90%"), [1]),
    (c("a", "is_null"), [3]),
    (c("a", "not_null"), [1, 2, 4, 5]),
    (c("n", "eq", "9007199254740993"), [1]),
    (c("n", "gt", 0), [1, 2]),
    (c("n", "lte", "0"), [4, 5]),
    (c("d", "eq", 1.1), [1]),
    (c("d", "gte", "2.0"), [2, 4]),
    (c("ok", "eq", True), [1, 4]),
    (c("at", "lt", "2026-01-01T02:00:00+02:00"), []),
    (c("at", "lte", "2026-01-01T02:00:00+02:00"), [1]),
    (c("at", "eq", "infinity"), [4]),
    (c("c", "eq", "ab"), [1, 4]),
    (c("j", "contains", {"name": "x"}), [1]),
    (c("j", "contains", []), [5]),
    (c("j", "jsonpath", '$.list[*].k ? (@ == "v")'), [1]),
    (c("tags", "contains", "{a}"), [1, 5]),
    (c("j", "eq", 10, path=["age"]), [1]),
    (c("j", "eq", "10", path=["age"]), [2]),
    (c("j", "gt", 9, path=["age"]), [1]),
    (c("j", "gte", "10", path=["age"]), [2]),
    (c("j", "in", [9, "10"], path=["age"]), [2, 4]),
    (c("j", "eq", "v", path=["list", "1", "k"]), [1]),
    (c("j", "is_null", path=["name"]), [3, 4, 5]),
    (c("j", "like", "_", path=["name"]), [1, 2]),
    (c("j", "contains", [1], path=["list"]), [1]),
    ({"and": []}, [1, 2, 3, 4, 5]),
    ({"or": []}, []),
    ({"not": c("ok", "eq", True)}, [2, 5]),
    ({"and": [c("ok", "eq", True), {"or": [c("n", "lt", 0), c("a", "eq", "bob")]}]}, [4]),
    ({"or": [{"not": {"or": [c("a", "is_null"), c("n", "gt", 0)]}}, c("id", "eq", 3)]}, [3, 4, 5]),
]


@pytest.mark.parametrize(("node", "wanted"), FOUND, ids=[str(n) for n, _ in FOUND])
async def test_a_filter_finds(data: Desk, node: dict[str, Any], wanted: list[int]) -> None:
    assert await ids(data, node) == wanted


@pytest.mark.parametrize(
    ("node", "code"),
    [
        (c("none", "eq", 1), "unknown_column"),
        (c("id", "eq", "x"), "wrong_type"),
        (c("id", "eq", None), "wrong_type"),
        (c("id", "in", 5), "wrong_type"),
        (c("id", "in", [1, None]), "wrong_type"),
        (c("id", "in", list(range(1001))), "filter_too_large"),
        (c("at", "eq", "soon"), "wrong_type"),
        (c("a", "like", 5), "wrong_type"),
        (c("a", "contains", "A"), "wrong_type"),
        (c("a", "eq", "x", path=["k"]), "wrong_type"),
        (c("j", "lt", True, path=["k"]), "wrong_type"),
        (c("j", "jsonpath", "$["), "sql_error"),
        (c("a", "regex", "x"), "invalid_request"),
        ({"and": [c("id", "eq", 1)] * 101}, "invalid_request"),
        ({"and": [{"or": [c("id", "eq", 1)] * 60}] * 2}, "filter_too_large"),
        ({"not": {}}, "invalid_request"),
        ({"and": [], "or": []}, "invalid_request"),
        ("x", "invalid_request"),
    ],
)
async def test_a_filter_that_cannot_be_used_is_refused_with_its_reason(data: Desk, node: Any, code: str) -> None:
    await data.bad("POST", "/tables/t/query", {"filter": node}, status=422, code=code)


def nested(depth: int) -> Any:
    node: Any = c("id", "eq", 1)
    for _ in range(depth):
        node = {"not": node}
    return node


async def test_depth_is_bounded_whatever_the_parser_could_do(data: Desk) -> None:
    assert await ids(data, nested(8)) == [1]
    for depth in (10, 60):
        await data.bad("POST", "/tables/t/query", {"filter": nested(depth)}, status=422, code="filter_too_large")
    assert (await data.ask("POST", "/tables/t/query", {"filter": nested(250)})).status in {400, 422}


@dataclass
class Of:
    name: str
    bare: str
    type: str


TYPES = ("text", "integer", "bigint", "numeric", "boolean", "uuid", "jsonb", "timestamp with time zone", "text[]", "bpchar")
OPS = ("eq", "ne", "lt", "lte", "gt", "gte", "in", "not_in", "like", "ilike", "is_null", "not_null", "contains", "jsonpath")
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=15)
MARK = "x\u2603'\";--$1"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text().map(lambda t: t + MARK),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
CONDITIONS = st.fixed_dictionaries(
    {"column": NAMES, "op": st.sampled_from(OPS), "value": VALUES},
    optional={"path": st.lists(st.text().map(lambda t: t + MARK), min_size=1, max_size=3)},
)
TREES = st.recursive(
    CONDITIONS,
    lambda inner: (
        st.fixed_dictionaries({"and": st.lists(inner, max_size=3)})
        | st.fixed_dictionaries({"or": st.lists(inner, max_size=3)})
        | st.fixed_dictionaries({"not": inner})
    ),
    max_leaves=8,
)


def without_names(sql: str) -> str:
    """The SQL with each quoted identifier taken out."""
    parts, inside, out = sql, False, ""
    n = 0
    while n < len(parts):
        if parts[n] == '"' and inside and parts[n : n + 2] == '""':
            n += 2
            continue
        if parts[n] == '"':
            inside = not inside
        elif not inside:
            out += parts[n]
        n += 1
    assert not inside
    return out


@given(TREES, st.sampled_from(TYPES))
def test_whatever_a_filter_says_its_values_and_paths_are_parameters(tree: Any, bare: str) -> None:
    parameters = Parameters()
    try:
        sql = filters.where(FILTER.validate_python(tree), lambda name: Of(name, bare, bare), parameters)
    except (Unfit, ValidationError):
        return
    bones = without_names(sql)
    assert "\u2603" not in bones
    assert not set(bones) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789 .,()$:[]<>=@#'{}")
    assert bones.count("$") == len(parameters.values)
