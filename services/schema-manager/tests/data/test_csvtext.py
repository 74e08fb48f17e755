"""Files as lines, without a database: the work that a hostile file makes, line ends, numbers as they were written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, SupportsIndex

import pytest
from loquat_schema_manager.domain import csvtext
from loquat_schema_manager.domain.csvtext import BadFile, Block
from loquat_schema_manager.domain.values import Unfit, as_text


@dataclass(frozen=True)
class Typed:
    name: str
    type: str

    @property
    def bare(self) -> str:
        return self.type


class Watched(bytes):
    """Bytes that count how many of them are counted through, put together or taken out."""

    touched = 0

    def count(self, *given: Any) -> int:
        Watched.touched += len(self)
        return super().count(*given)

    def __add__(self, other: Any) -> Watched:
        Watched.touched += len(self) + len(other)
        return Watched(super().__add__(other))

    def __radd__(self, other: bytes) -> Watched:
        Watched.touched += len(self) + len(other)
        return Watched(bytes(other) + bytes(self))

    def splitlines(self, keepends: bool = False) -> list[bytes]:
        return [Watched(line) for line in super().splitlines(keepends)]

    def __getitem__(self, at: SupportsIndex | slice) -> Any:
        taken = super().__getitem__(at)
        if not isinstance(taken, bytes):
            return taken
        Watched.touched += len(taken)
        return Watched(taken)


def work(lines: int) -> int:
    """Bytes that are touched to find the records of a file whose one record has so many lines."""
    Watched.touched = 0
    assert len(list(csvtext.records(Block(1, Watched(b'"' + b"\n" * lines + b'"\n'))))) == 1
    return Watched.touched


def test_a_record_of_many_lines_costs_as_much_as_it_is_long() -> None:
    few, many = work(500), work(2_000)
    assert 0 < many < few * 5


def test_a_header_is_found_without_a_look_at_the_rows() -> None:
    Watched.touched = 0
    names, rest = csvtext.header(Block(1, Watched(b"a,b\n" + b"1,2\n" * 10_000)), ",")
    assert Watched.touched < 40_000 + 20  # what is handed on, and the first line
    assert (names, rest) == (["a", "b"], Block(2, b"1,2\n" * 10_000))


@pytest.mark.parametrize("file", [b"a,b\r1,2\r3,4\r", b'"a\r\n",b\r1,2\r', b"a\r", b'a\r"\n"\n'])
def test_line_ends_that_are_carriage_returns_alone_are_refused(file: bytes) -> None:
    with pytest.raises(BadFile) as refused:
        csvtext.header(Block(1, file), ",")
    assert (refused.value.code, refused.value.about["line"]) == ("wrong_line_ends", 1)


def test_a_carriage_return_in_quotes_is_part_of_a_name() -> None:
    assert csvtext.header(Block(1, b'"a\rb",c\r\n1,2\r\n'), ",") == (["a\rb", "c"], Block(2, b"1,2\r\n"))


@pytest.mark.parametrize(
    "number",
    ["12345678901234567890123", "0.12345678901234567890123", "1e400", "-1.5E-400", "1.50", "9" * 5000, "7", "0.1"],
)
@pytest.mark.parametrize("type", ["numeric", "jsonb"])
def test_a_number_of_a_jsonl_line_is_given_to_postgres_as_it_is_written(number: str, type: str) -> None:
    columns = {"v": Typed("v", type), "é\\": Typed("é\\", "text")}
    line = f' {{ "v" : 1, "\\u00e9\\\\": "1.5 \\" }}", "v":{number} }} '.encode()
    assert csvtext.of_object(line, columns) == (("v", "é\\"), {"v": number, "é\\": '1.5 " }'})


def test_numbers_deep_in_a_jsonb_value_keep_their_digits() -> None:
    text = '{"x": [1e400, {"y": 0.12345678901234567890123}], "z": "\\u2603"}'
    assert csvtext.of_object(b'{"j": %s}' % text.encode(), {"j": Typed("j", "jsonb")})[1] == {"j": text}


@pytest.mark.parametrize(
    ("number", "type", "why"),
    [
        ("NaN", "numeric", "not_json"),
        ("1e999999999999999999999", "bigint", "wrong_type"),
        ("9223372036854775808", "bigint", "wrong_type"),
        ("1.0000000000000000000001", "integer", "wrong_type"),
        ("0.5", "boolean", "wrong_type"),
        ("[" * 1010 + "1.5" + "]" * 1010, "jsonb", "not_json"),
    ],
)
def test_a_number_of_a_jsonl_line_that_does_not_fit_is_refused(number: str, type: str, why: str) -> None:
    with pytest.raises(Unfit) as refused:
        csvtext.of_object(b'{"v": %s}' % number.encode(), {"v": Typed("v", type)})
    assert refused.value.code == why


def test_a_whole_number_keeps_its_value_however_it_is_written() -> None:
    written = {"9007199254740993.0": "9007199254740993", "1e3": "1000", "-9223372036854775808": "-9223372036854775808"}
    for given, meant in written.items():
        assert csvtext.of_object(b'{"v": %s}' % given.encode(), {"v": Typed("v", "bigint")})[1] == {"v": meant}


@pytest.mark.parametrize("value", [float("inf"), float("nan"), [1, {"x": float("-inf")}]])
@pytest.mark.parametrize("type", ["numeric", "double precision", "jsonb"])
def test_a_number_that_json_does_not_have_is_refused_with_its_column(value: Any, type: str) -> None:
    with pytest.raises(Unfit) as refused:
        as_text(Typed("v", type), value)
    assert refused.value.about["column"] == "v"
    assert refused.value.code == ("wrong_type" if isinstance(value, list) and type != "jsonb" else "not_finite")


def test_a_number_whose_digits_may_be_lost_must_be_a_string_for_numeric() -> None:
    for value in (0.12345678901234568, 1.2345678901234567e22, 9007199254740993.0):
        with pytest.raises(Unfit) as refused:
            as_text(Typed("v", "numeric"), value)
        assert (refused.value.code, refused.value.about["column"]) == ("digits_lost", "v")
    for value, text in (
        (0.1, "0.1"),
        (12345678901234567890123, "12345678901234567890123"),
        ("0.12345678901234567890123",) * 2,
        (1e300, "1e+300"),
    ):
        assert as_text(Typed("v", "numeric"), value) == text
    assert as_text(Typed("v", "double precision"), 0.30000000000000004) == "0.30000000000000004"
