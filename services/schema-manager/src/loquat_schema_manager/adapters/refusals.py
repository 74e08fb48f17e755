"""Postgres' refusals as problems for people and programs: one place, so that the same mistake has the same code everywhere.

Only errors that the tenant's own statement can cause are translated; what is ours stays an error of ours.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import asyncpg
from loquat_common.problems import Problem

from loquat_schema_manager.adapters.sizes import Size

# By SQLSTATE, the longest match first: a code of five characters, else its class of two.
_CODES: Final[dict[str, tuple[int, str, str]]] = {
    "23505": (409, "not_unique", "Another row has this value already"),
    "23503": (409, "foreign_key", "A row that is referred to is missing, or is still referred to"),
    "23502": (422, "not_null", "A value is missing where there must be one"),
    "23514": (422, "check", "A check of the table refuses a value"),
    "23P01": (409, "exclusion", "A value overlaps with another row's"),
    "22P02": (422, "wrong_type", "A value does not fit the column's type"),
    "22007": (422, "wrong_type", "A value does not fit the column's type"),
    "22008": (422, "wrong_type", "A value does not fit the column's type"),
    "22003": (422, "wrong_type", "A number is out of its type's range"),
    "22001": (422, "too_long", "A value is longer than its column"),
    "42P01": (404, "not_found", "There is no such table"),
    "42703": (422, "unknown_column", "There is no such column"),
    "42P07": (409, "already_there", "There is a table or an index with this name already"),
    "42701": (409, "already_there", "There is a column with this name already"),
    "42710": (409, "already_there", "There is something with this name already"),
    "42501": (403, "forbidden", "The project's role may not do that"),
    "2BP01": (409, "still_needed", "Something else depends on it"),
    "25006": (403, "read_only", "This session may only read"),
    "55P03": (409, "locked", "Somebody else holds a lock that is needed"),
    "40P01": (409, "locked", "Two transactions waited for each other; this one was given up"),
    "40001": (409, "locked", "Another transaction changed the same rows at the same time"),
    "57014": (422, "too_slow", "The statement took longer than its limit"),
    "25P03": (422, "too_slow", "The transaction was idle for longer than its limit"),
    "25P04": (422, "too_slow", "The transaction took longer than its limit"),
    "53100": (507, "over_limit", "The project's database is over a limit"),
    "53400": (507, "over_limit", "The statement is over a limit of this database"),
    "53200": (422, "too_much_memory", "The statement needs more memory than a project may use"),
    "54": (422, "over_limit", "The statement is over a limit of PostgreSQL"),
    "22": (422, "wrong_value", "A value cannot be used"),
    "23": (409, "constraint", "A constraint refuses the change"),
    "42": (422, "sql_error", "The statement is not valid"),
    "0A": (422, "sql_error", "PostgreSQL cannot do that"),
    "P0": (422, "raised", "A function or trigger of the project refused it"),
    "2F": (422, "raised", "A function or trigger of the project refused it"),
    "38": (422, "raised", "A function or trigger of the project refused it"),
    "39": (422, "raised", "A function or trigger of the project refused it"),
    "25": (422, "sql_error", "The statement is not possible in this transaction"),
    "26": (422, "sql_error", "The statement is not valid"),
    "2D": (422, "sql_error", "The statement is not possible in this transaction"),
    "34": (422, "sql_error", "The statement is not valid"),
    "21": (422, "sql_error", "The statement is not valid"),
    "24": (422, "sql_error", "The statement is not valid"),
    "0L": (422, "sql_error", "The statement is not valid"),
    "0P": (422, "sql_error", "The statement is not valid"),
    "28": (422, "sql_error", "The statement is not valid"),
    "2B": (422, "sql_error", "The statement is not valid"),
    "3B": (422, "sql_error", "The statement is not possible in this transaction"),
    "3D": (422, "sql_error", "There is no such database"),
    "3F": (422, "sql_error", "There is no such schema"),
    "44": (422, "check", "A view's check refuses a row"),
    "55": (409, "sql_error", "The object is not in the state that this needs"),
}


_WAY_OUT: Final = (
    "Delete rows, clear or drop tables, drop columns and indexes, or raise the limit; what is read goes on."
    " Below 90 % everything works again, within a minute"
)
_RAISED: Final = (422, "raised", "A function or trigger of the project refused it")
_INTERNAL: Final = (422, "sql_error", "PostgreSQL failed at the statement")
_RAISE: Final = "exec_stmt_raise"
"""Where in PostgreSQL the error was made: that of PL/pgSQL's RAISE, which can claim every code, but not another place. A disk that fails is not it."""
_OURS: Final = ("57", "58", "08", "XX")  # the server's own troubles
_TOLD: Final = 2_000
"""Characters of any text of an error that are passed on: the tenant may write 25 MB into each."""
_HINTS: Final = {"25006": "The console writes when it is told so: read_only false"}


def refusal(error: asyncpg.PostgresError) -> Problem | None:
    """The problem; None for what is no answer to the tenant's statement (the server stops, a connection is lost)."""
    code = error.sqlstate or ""
    found = _CODES.get(code) or _CODES.get(code[:2]) or _raised(error, code)
    if found is None:
        return None
    status, word, title = found
    named = {
        "constraint": getattr(error, "constraint_name", None),
        "column": getattr(error, "column_name", None),
        "table": getattr(error, "table_name", None),
        "hint": _HINTS.get(code) or getattr(error, "hint", None),
    }
    detail = "; ".join(p[:_TOLD] for p in (str(error.args[0]) if error.args else "", getattr(error, "detail", None)) if p)
    return Problem(status, word, title, detail[:_TOLD], sqlstate=code, **{k: v[:_TOLD] for k, v in named.items() if v})


def over_size(size: Size | None) -> Problem:
    """The project's database is over its size; None: the numbers cannot be learned now."""
    told = f"It has {size.size} bytes; {size.limit} are the limit. " if size else ""
    numbers = {"size_bytes": size.size, "limit_bytes": size.limit} if size else {}
    return Problem(507, "over_limit", "The project's database is over its size", told + _WAY_OUT, **numbers)


def lives(error: asyncpg.PostgresError) -> bool:
    """Whether the session that answered goes on: no statement can claim another severity, as it can any SQLSTATE (`RAISE … USING ERRCODE`)."""
    return getattr(error, "severity_en", None) == "ERROR"


def _raised(error: asyncpg.PostgresError, code: str) -> tuple[int, str, str] | None:
    """From a session that lives: a code of the tenant's own, or one of the server's that it did not mean itself."""
    if not lives(error):
        return None
    if getattr(error, "server_source_function", None) == _RAISE or code.startswith("57P") or not code.startswith(_OURS):
        return _RAISED
    return _INTERNAL if code == "XX000" else None


@contextmanager
def refusals() -> Generator[None]:
    """Statements of a tenant inside raise a Problem when Postgres refuses them."""
    try:
        yield
    except asyncpg.PostgresError as error:
        if (problem := refusal(error)) is None:
            raise
        raise problem from None
    except asyncpg.InterfaceError as error:
        if not isinstance(error, ValueError):  # the client's word for a value that is none of the type
            raise
        raise Problem(422, "wrong_type", "A value does not fit the column's type", str(error)[:_TOLD]) from None
