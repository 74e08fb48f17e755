"""A text of SQL as its statements: where each begins and with which words. No wall: what is parted wrongly, Postgres refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

# Possessive (`++`, `*+`): a text of megabytes is read once, however it is made. A quote that does not end takes all the rest.
# Whatever is not ASCII may stand in a name, as in Postgres' own scanner.
_TOKEN: Final = re.compile(
    r"""
      (?P<space> [ \t\n\r\f\v]++ | --[^\n\r]*+ )
    | (?P<comment> /\* )
    | (?P<dollar> \$(?:[a-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*+)?+\$ )
    | (?P<quoted> e'(?:[^'\\]|\\.|'')*+(?:'|\Z) | '(?:[^']|'')*+(?:'|\Z) | "(?:[^"]|"")*+(?:"|\Z) )
    | (?P<word> [a-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*+ )
    | (?P<other> \d[\w.$]*+ | . )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII | re.IGNORECASE,
)
_COMMENT: Final = re.compile(r"/\*|\*/")
_WORDS: Final = 5  # as many as tell what a statement is
_ENDS: Final = frozenset({"begin", "start", "commit", "end", "rollback", "abort"})


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. `start` counts characters of the whole text; `words` are its first ones that are not quoted, in small letters."""

    text: str
    start: int
    words: tuple[str, ...]

    @property
    def ends_transaction(self) -> bool:
        """Whether it would begin or end the transaction that it runs in. Savepoints are within it."""
        if not self.words or (self.words[0] not in _ENDS and self.words[:2] != ("prepare", "transaction")):
            return False
        rest = [w for w in self.words[1:] if w not in {"work", "transaction"}]
        return not (self.words[0] == "rollback" and rest[:1] == ["to"])


@dataclass(slots=True)
class _Reading:
    """The statement that is being read."""

    start: int | None = None
    end: int = 0
    words: list[str] = field(default_factory=list[str])
    parens: int = 0
    blocks: int = 0  # of a function's body BEGIN ATOMIC ... END

    def token(self, kind: str | None, text: str, start: int, end: int) -> None:
        if self.start is None:
            self.start = start
        self.end = end
        if kind == "word":
            self._word(text.lower())
        elif text == "(":
            self.parens += 1
        elif text == ")":
            self.parens = max(0, self.parens - 1)

    def _word(self, word: str) -> None:
        if len(self.words) < _WORDS:
            self.words.append(word)
        if self.parens or not _makes_routine(self.words):
            return
        if word == "begin" or (word == "case" and self.blocks):
            self.blocks += 1
        elif word == "end" and self.blocks:
            self.blocks -= 1


def _makes_routine(words: list[str]) -> bool:
    """As psql tells it: CREATE [OR REPLACE] FUNCTION or PROCEDURE."""
    rest = words[3:] if words[1:3] == ["or", "replace"] else words[1:]
    return words[:1] == ["create"] and rest[:1] in (["function"], ["procedure"])


def split(sql: str) -> list[Statement]:
    """The statements of a text, without the semicolons that part them and without empty ones."""
    found: list[Statement] = []
    reading, at = _Reading(), 0
    while at < len(sql):
        token = _TOKEN.match(sql, at)
        assert token is not None  # noqa: S101  ("other" is any character)
        kind, end = token.lastgroup, token.end()
        if kind == "comment":
            end = _after_comment(sql, end)
        elif kind == "dollar":
            closing = sql.find(token.group(), end)
            end = len(sql) if closing < 0 else closing + len(token.group())
        if token.group() == ";" and not reading.parens and not reading.blocks:
            _take(reading, sql, found)
            reading = _Reading()
        elif kind not in {"space", "comment"}:
            reading.token(kind, token.group(), at, end)
        at = end
    _take(reading, sql, found)
    return found


def _take(reading: _Reading, sql: str, found: list[Statement]) -> None:
    if reading.start is not None:
        found.append(Statement(sql[reading.start : reading.end], reading.start, tuple(reading.words)))


def _after_comment(sql: str, at: int) -> int:
    """Comments stand in comments."""
    depth = 1
    for mark in _COMMENT.finditer(sql, at):
        depth += 1 if mark.group() == "/*" else -1
        if not depth:
            return mark.end()
    return len(sql)


def line_of(sql: str, position: int) -> tuple[int, int]:
    """Line and column, from 1, of a character that is counted from 0."""
    before = sql[:position]
    return before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1
