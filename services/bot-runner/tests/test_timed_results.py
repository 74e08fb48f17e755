"""What a worker's word about timers and sends is worth. No database."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from loquat_bot_runner.domain.replies import checked
from loquat_bot_runner.errors import ProtocolViolated


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


TEXT = {"type": "text", "text": "hi"}
TIMER = {"name": "t", "at": "2026-05-01T10:00:00.000001+00:00", "data": {"a": [1, None]}, "until_answer": True}
SEND = {"contact_id": str(uuid4()), **TEXT}


def test_timers_and_sends_as_the_sdk_gives_them_pass_as_they_are() -> None:
    said = {"replies": [], "timers": [TIMER, {"name": "u", "at": None}], "sends": [SEND]}
    assert checked(said) == said
    assert checked({"replies": [TEXT], "timers": [], "sends": None}) == {"replies": [TEXT]}
    deep = {"replies": [], "contact": {"attributes": {"x": nested(31)}}, "timers": [{**TIMER, "data": nested(32)}]}
    assert checked(deep) == deep


WRONG: list[dict[str, Any]] = [
    {"timers": {}},
    {"timers": [TIMER] * 21},
    {"timers": ["t"]},
    {"timers": [{**TIMER, "name": ""}]},
    {"timers": [{**TIMER, "name": "x" * 61}]},
    {"timers": [{**TIMER, "name": "\0"}]},
    {"timers": [{**TIMER, "at": "2026-05-01"}]},
    {"timers": [{**TIMER, "at": "2026-05-01T10:00:00+02:00"}]},
    {"timers": [{**TIMER, "at": 5}]},
    {"timers": [{**TIMER, "data": "\0"}]},
    {"timers": [{**TIMER, "until_answer": 1}]},
    {"timers": [{**TIMER, "data": nested(34)}]},
    {"contact": {"attributes": {"x": nested(33)}}},
    {"ask": {"seconds": None, "answers": nested(130)}},
    {"timers": [{**TIMER, "more": 1}]},
    {"sends": [SEND] * 501},
    {"sends": [TEXT]},
    {"sends": [{**SEND, "contact_id": "x"}]},
    {"sends": [{**SEND, "contact_id": 7}]},
    {"sends": [{**SEND, "type": "dance"}]},
    {"sends": ["hi"]},
]


@pytest.mark.parametrize("wrong", WRONG)
def test_whatever_else_a_worker_says_of_them_breaks_the_protocol(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProtocolViolated):
        checked({"replies": [], **wrong})
