"""Bursts: texts that follow each other quickly are one call. The platform asks again when there may be an end; nobody waits here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from loquat.messages import Message, Text, read
from loquat.rules import Rule

MOST_JOINED: Final = 20
"""Texts of one burst."""
LONGEST: Final = 10
"""Windows after which a burst is over, though there is no end to it."""


class NotYet(BaseException):
    """More may come: the call is to be made again in so many seconds. No `except Exception` of a bot stops it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Following:
    """What is known to come after this message in its conversation; `ago`: seconds since each arrived, this one first."""

    ago: tuple[float, ...]
    messages: tuple[Message, ...]

    @classmethod
    def of(cls, told: Mapping[str, Any] | None) -> Following | None:
        """As the platform tells it; None: it does not."""
        if told is None:
            return None
        more: Sequence[Mapping[str, Any]] = told.get("more") or ()
        return cls((float(told["ago"]), *(float(m["ago"]) for m in more)), tuple(read(m) for m in more))


def gathered(rule_of: Callable[[Message], Rule | None], event: Message, following: Following | None) -> tuple[Message, tuple[UUID, ...]]:
    """The message with those that belong to its burst, and the ids of these. `rule_of`: which rule takes a message.

    Raises:
        NotYet: more may come.
    """
    rule = rule_of(event)
    if following is None or rule is None or not rule.burst or not isinstance(event, Text):
        return event, ()
    joined = [event]
    for message in following.messages[: MOST_JOINED - 1]:
        if not isinstance(message, Text) or rule_of(message) is not rule:
            break
        joined.append(message)
    over = len(joined) <= len(following.messages) or len(joined) == MOST_JOINED or following.ago[0] >= LONGEST * rule.burst
    if not over and (left := rule.burst - following.ago[len(joined) - 1]) > 0:
        raise NotYet(left)
    texts = tuple(m.text for m in joined)
    return replace(event, text="\n".join(texts), texts=texts), tuple(m.id for m in joined[1:])
