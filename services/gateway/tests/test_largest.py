"""The largest body becomes events that the bus takes: refused ones would be refused until Meta gives up."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from loquat_common.bus.record import LARGEST, Record
from loquat_gateway.domain import webhook

NOW = datetime(2026, 11, 24, tzinfo=UTC)
HALF = r'"\ud800"'  # half a character: its message is escaped as a whole


def filled(unit: str, *, open_with: str, close_with: str) -> bytes:
    """A body of the greatest size with one message, filled with repetitions of `unit`."""
    before = (
        '{"object":"whatsapp_business_account","entry":[{"id":"w","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"1"},'
        '"messages":[{"from":"4915","id":"m","timestamp":"1790000000","type":"text","text":' + open_with
    )
    after = close_with + "}]}}]}]}"
    room = webhook.BODY_LIMIT - len(before.encode()) - len(after.encode())
    return (before + unit * (room // len(unit.encode())) + after).encode()


WORST = {
    "quotes": filled(r"\"", open_with='{"body":"', close_with='"}'),
    "backslashes": filled(r"\\", open_with='{"body":"', close_with='"}'),
    "control characters": filled(r"\u0001", open_with='{"body":"', close_with='"}'),
    "empty texts": filled('"",', open_with='{"x":[', close_with='""]}'),
    "letters beside half a character": filled("é", open_with=f'{{"x":{HALF},"body":"', close_with='"}'),
    "emoji beside half a character": filled("😀", open_with=f'{{"x":{HALF},"body":"', close_with='"}'),
    "numbers written out": filled("1e15,", open_with='{"x":[', close_with="0]}"),
    "numbers beside half a character": filled("1e15,", open_with=f'{{"y":{HALF},"x":[', close_with="0]}"),
}


@pytest.mark.promise("P1")
@pytest.mark.parametrize("routed", [True, False], ids=["to its project", "to nobody yet"])
@pytest.mark.parametrize("kind", WORST)
def test_the_worst_body_of_its_kind_makes_an_event_that_the_bus_takes(kind: str, *, routed: bool) -> None:
    raw = WORST[kind]
    assert webhook.BODY_LIMIT - 6 < len(raw) <= webhook.BODY_LIMIT
    (event,) = webhook.events(webhook.parse(raw), lambda _: "prj_1" if routed else None, NOW)
    size = len(Record.of(event).value)
    assert len(raw) < size < LARGEST
