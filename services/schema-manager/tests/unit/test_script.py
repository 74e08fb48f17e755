"""A script is parted where Postgres parts it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some
from loquat_schema_manager.domain.script import line_of, split

WHOLE = [
    "SELECT ';'",
    "SELECT 'a'';b'",
    r"SELECT E'\';'",
    r"SELECT '\'",
    'SELECT ";"";"',
    "SELECT $$;$$",
    "SELECT $a$;$$;$b$;$a$",
    "SELECT 1 /* ; /* ; */ ; */ + 2",
    "SELECT 1 -- ;\n + 2",
    "SELECT a$$ , b$$",
    "SELECT é$a$ FROM t",
    "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END",
    "CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); END",
    "SELECT 'not ended; at all",
    "SELECT $x$ not ended; at all",
    "SELECT 1 /* not ended; at all",
]


@pytest.mark.parametrize("sql", WHOLE)
def test_semicolons_inside_of_something_part_nothing(sql: str) -> None:
    assert [s.text for s in split(f" ;; {sql} ")] == [sql.strip()] or sql.endswith("at all")
    assert len(split(sql)) == 1


@given(some.lists(some.sampled_from([s for s in WHOLE if not s.endswith("at all")]), max_size=6))
def test_statements_come_apart_as_they_were_put_together(parts: list[str]) -> None:
    sql = ";\n".join(parts)
    found = split(sql)
    assert [s.text for s in found] == parts
    assert all(sql[s.start :].startswith(s.text) for s in found)


@given(some.text(alphabet="'\"$;/*-\\eE a\n(é1", max_size=60))
def test_nothing_of_a_text_is_lost_but_semicolons_spaces_and_comments(sql: str) -> None:
    kept = [s for s in split(sql) if s.text]
    assert [sql[s.start : s.start + len(s.text)] for s in kept] == [s.text for s in kept]
    ends = [s.start + len(s.text) for s in kept]
    assert all(after.start > end for end, after in zip(ends, kept[1:], strict=False))


@pytest.mark.parametrize(
    ("sql", "ends"),
    [
        ("COMMIT", True),
        ("/* x */ end", True),
        ("rollback work", True),
        ("ROLLBACK TO a", False),
        ("rollback transaction to savepoint a", False),
        ("ROLLBACK PREPARED 'to'", True),
        ("PREPARE TRANSACTION 'x'", True),
        ("PREPARE p AS SELECT 1", False),
        ("SAVEPOINT a", False),
        ('SELECT "commit"', False),
        ("CREATE TABLE begin ()", False),
    ],
)
def test_what_ends_the_transaction_is_known_by_its_words(sql: str, ends: bool) -> None:
    assert [s.ends_transaction for s in split(sql)] == [ends]


@pytest.mark.parametrize("piece", ["'", "$$", "$a$", "/*", "-- ", "((", '"', "E'\\", "a", "1", "\u00e9", "BEGIN "])
def test_a_hostile_text_is_read_in_the_time_of_its_length(piece: str) -> None:
    assert len(split(f"SELECT {piece * (200_000 // len(piece))}")) == 1  # quadratic, it would take longer than a test may


def test_lines_and_columns_count_from_one() -> None:
    assert [line_of("a\nbc", n) for n in (0, 1, 2, 3)] == [(1, 1), (1, 2), (2, 1), (2, 2)]
