"""Classic BPF, as far as a seccomp filter needs it: an assembler for programs that look at one call and say what becomes of it."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000

LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
IF_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
RETURN: Final = 0x06  # BPF_RET | BPF_K

# struct seccomp_data: nr, arch, instruction pointer, six arguments of 64 bits; both our processors are little-endian.
NUMBER: Final = 0
ARCHITECTURE: Final = 4
_ARGUMENTS: Final = 16
_ALL: Final = 0xFFFFFFFF
_FARTHEST: Final = 255  # a jump's length has one byte
LONGEST: Final = 4096
"""Instructions of a program: BPF_MAXINSNS."""


def refuse(errno: int) -> int:
    """The verdict: the call fails with `errno` and does nothing."""
    return _ERRNO | errno


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction; `yes` and `no` say how many following ones a comparison skips."""

    code: int
    value: int
    yes: int = 0
    no: int = 0


@dataclass(frozen=True, slots=True)
class Test:
    """Holds when an argument, masked, is one of some values. An `int` of C is judged by its low half alone: the kernel drops the other."""

    argument: int
    values: tuple[int, ...]
    mask: int = _ALL
    whole: bool = False

    def steps(self) -> list[Step]:
        """Falls through when it holds, else jumps over what is `left` behind it: the last step's `no`, to be filled in by `any_of`."""
        low = _ARGUMENTS + 8 * self.argument
        made = [Step(LOAD, low)]
        if self.mask != _ALL:
            made.append(Step(AND, self.mask))
        for n, value in enumerate(self.values):
            made.append(Step(IF_EQUAL, value, yes=len(self.values) - n - 1))
        if self.whole:
            made += [Step(LOAD, low + 4), Step(IF_EQUAL, 0)]
        return made


def any_of(ways: Sequence[Sequence[Test]], verdict: int) -> list[Step]:
    """`verdict` if all tests of one way hold; falls through otherwise."""
    made: list[Step] = []
    for way in ways:
        block: list[Step] = [Step(RETURN, verdict)]
        for test in reversed(way):
            block = _before(test, block)
        made += block
    return made


def _before(test: Test, rest: list[Step]) -> list[Step]:
    """The test, then `rest`, which is skipped when it fails."""
    steps = test.steps()
    skips = [n for n, s in enumerate(steps) if s.code == IF_EQUAL and (n == len(steps) - 1 or steps[n + 1].code != IF_EQUAL)]
    for n in skips:
        steps[n] = Step(IF_EQUAL, steps[n].value, steps[n].yes, len(steps) - n - 1 + len(rest))
    return steps + rest


def packed(steps: Iterable[Step]) -> bytes:
    """The program as the kernel takes it: an array of struct sock_filter.

    Raises:
        ValueError: it is too long, or a jump is too far.
    """
    made = list(steps)
    if len(made) > LONGEST or any(max(s.yes, s.no) > _FARTHEST for s in made):
        raise ValueError(f"a program of {len(made)} steps, or a jump over more than {_FARTHEST} of them")
    return b"".join(struct.pack("<HBBI", s.code, s.yes, s.no, s.value) for s in made)
