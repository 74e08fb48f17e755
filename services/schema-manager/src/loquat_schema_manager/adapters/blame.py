"""Which column and value Postgres meant: its message names the value, seldom the column."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_common.problems import Problem

from loquat_schema_manager.adapters.refusals import refusals
from loquat_schema_manager.domain.values import Typed, Unfit, shorten

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_ABOUT_VALUES: Final = {"wrong_type", "wrong_value", "too_long"}
_STATUS: Final = {"invalid_cursor": 400}
_FIRST_WRONG: Final = """
SELECT u.n FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS u(value, type, n)
WHERE u.value IS NOT NULL AND NOT pg_catalog.pg_input_is_valid(u.value, u.type) ORDER BY u.n LIMIT 1"""

Given = tuple[int, Typed, str | None]
"""A value of a request: the number of its row from 1, its column, its text."""


@contextmanager
def fitting() -> Generator[None]:
    """What the caller gave and what Postgres refuses become problems."""
    try:
        with refusals():
            yield
    except Unfit as error:
        raise unfit_problem(error) from None


def unfit_problem(error: Unfit) -> Problem:
    """The problem of a value that cannot be used."""
    return Problem(_STATUS.get(error.code, 422), error.code, error.title, error.detail, **error.about)


async def named(connection: Connection, problem: Problem, given: Sequence[Given]) -> Problem:
    """The same problem with the column and the value it is about, if one of `given` is wrong by itself. In no failed transaction."""
    if problem.code not in _ABOUT_VALUES:
        return problem
    texts, types = [text for _, _, text in given], [column.type for _, column, _ in given]
    try:
        found: int | None = await connection.fetchval(_FIRST_WRONG, texts, types)
    except (asyncpg.PostgresError, ValueError):  # a type of the tenant's whose input function raises
        return problem
    if found is None:
        return problem
    row, column, text = given[found - 1]
    detail = f"{column.name}: {shorten(text)} — {problem.detail}"
    return Problem(
        problem.status, problem.code, problem.title, detail, **{**problem.extra, "column": column.name, "value": shorten(text), "row": row}
    )
