"""What the connector decides without touching anything: shapes and limits, what an answer means, how fast."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loquat_connector.domain.graph import Unsendable, recipient, request
from loquat_connector.domain.pacing import Pacing, Rate
from loquat_connector.domain.verdict import answered, nobody_knows, not_sent
from loquat_events.conversations import Address, Outgoing

ID = UUID(int=7)


def shape(**message: Any) -> dict[str, Any]:
    return request(Outgoing.model_validate(message), "4915", is_user_id=False, message_id=ID)


def test_each_type_has_the_graph_apis_shape_and_carries_our_id() -> None:
    assert shape(type="text", text="hi") == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": "+4915",
        "type": "text",
        "text": {"body": "hi"},
        "biz_opaque_callback_data": str(ID),
    }
    buttons = shape(type="buttons", text="?", content={"buttons": [{"id": "a", "title": "A"}]})["interactive"]
    assert buttons["action"] == {"buttons": [{"type": "reply", "reply": {"id": "a", "title": "A"}}]}
    listed = shape(type="list", text="?", content={"button": "Open", "sections": [{"rows": [{"id": "a", "title": "A"}]}]})["interactive"]
    assert listed["action"] == {"button": "Open", "sections": [{"rows": [{"id": "a", "title": "A"}]}]}
    form = {"flow_name": "booking", "flow_cta": "Open", "flow_token": "booking:7f", "screen": "WHEN", "data": {"days": [1]}}
    assert shape(type="flow", text="?", content=form)["interactive"] == {
        "type": "flow",
        "body": {"text": "?"},
        "action": {
            "name": "flow",
            "parameters": {
                "flow_message_version": "3",
                "flow_name": "booking",
                "flow_cta": "Open",
                "flow_token": "booking:7f",
                "flow_action": "navigate",
                "flow_action_payload": {"screen": "WHEN", "data": {"days": [1]}},
            },
        },
    }
    assert shape(type="image", text="cap", content={"link": "https://x/y.png"})["image"] == {"link": "https://x/y.png", "caption": "cap"}


def test_a_user_id_is_a_recipient_and_no_number() -> None:
    body = request(Outgoing(type="text", text="x"), "DE.1", is_user_id=True, message_id=ID)
    assert (body["recipient"], "to" in body) == ("DE.1", False)


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ({"type": "text", "text": " "}, "text is empty"),
        ({"type": "buttons", "text": "x", "content": {"buttons": [{"id": str(n), "title": "t"} for n in range(4)]}}, "buttons.buttons"),
        ({"type": "buttons", "text": "x", "content": {"buttons": [{"id": "a", "title": "t" * 21}]}}, "title"),
        ({"type": "buttons", "text": "x" * 1025, "content": {"buttons": [{"id": "a", "title": "t"}]}}, "1024 are the limit"),
        (
            {
                "type": "list",
                "text": "x",
                "content": {"button": "b", "sections": [{"rows": [{"id": f"{s}{n}", "title": "t"} for n in range(6)]} for s in "ab"]},
            },
            "12 rows",
        ),
        ({"type": "image", "content": {}}, "a link or an id"),
        ({"type": "flow", "text": "x", "content": {"flow_cta": "Open", "flow_token": "t"}}, "flow_id or flow_name"),
        ({"type": "flow", "text": "x", "content": {"flow_id": "1", "flow_cta": "x" * 31, "flow_token": "t"}}, "flow.flow_cta"),
        ({"type": "flow", "text": "x", "content": {"flow_id": "1", "flow_cta": "x", "flow_token": "t", "data": {"a": 1}}}, "none is named"),
    ],
)
def test_what_whatsapp_would_refuse_is_named_with_its_limit(message: dict[str, Any], named: str) -> None:
    with pytest.raises(Unsendable, match=named):
        shape(**message)


def test_a_phone_number_comes_before_a_user_id_and_no_address_cannot_be_written_to() -> None:
    user, phone, name = Address(kind="user_id", value="DE.1"), Address(kind="wa_id", value="49"), Address(kind="username", value="anna")
    assert recipient([user, phone]) == ("49", False)
    assert recipient([name, user]) == ("DE.1", True)
    with pytest.raises(Unsendable):
        recipient([name])


def error(code: int, attempts: int = 1, status: int = 400) -> tuple[str, float, bool]:
    verdict = answered(status, {"error": {"code": code, "message": "m", "error_data": {"details": "d"}, "fbtrace_id": "A"}}, attempts)
    return verdict.state, verdict.wait, verdict.reconnect


@pytest.mark.parametrize(
    ("code", "attempts", "state", "wait"),
    [
        (131000, 1, "queued", 0.5),
        (131000, 4, "failed", 0),
        (131057, 9, "queued", 60),
        (130429, 9, "queued", 1),
        (131056, 1, "queued", 1),
        (131056, 3, "queued", 16),
        (131056, 30, "queued", 256),
        (80007, 1, "queued", 60),
        (131048, 9, "queued", 3600),
        (131064, 9, "queued", 3600),
        (131053, 1, "queued", 5),
        (131053, 2, "failed", 0),
        (131047, 1, "failed", 0),
        (131026, 1, "failed", 0),
        (100, 1, "failed", 0),
        (999_999, 1, "failed", 0),
    ],
)
def test_the_error_table_as_data(code: int, attempts: int, state: str, wait: float) -> None:
    assert error(code, attempts) == (state, wait, False)


@pytest.mark.parametrize("code", [0, 10, 190, 200, 299, 131005])
def test_a_token_that_does_not_work_parks_the_message_and_asks_to_connect_the_number_again(code: int) -> None:
    assert error(code, 9, 401) == ("queued", 5, True)


@pytest.mark.parametrize("code", [33, 368, 131031, 131037, 131042, 131045, 133010])
def test_what_a_person_must_mend_at_meta_parks_the_number_and_fails_no_message(code: int) -> None:
    verdict = answered(403, {"error": {"code": code, "message": "m"}}, 9)
    assert (verdict.state, verdict.park, verdict.reconnect, verdict.code) == ("queued", 600, False, code)


@pytest.mark.promise("P2")
def test_an_answer_without_an_error_and_without_an_id_is_unknown_and_never_sent_again() -> None:
    cases: list[tuple[int, dict[str, Any] | None]] = [(200, None), (200, {}), (200, {"messages": []}), (502, None), (500, {"html": 1})]
    for status, body in cases:
        assert answered(status, body, 1).state == "unknown"
    assert nobody_knows("ServerDisconnectedError").state == "unknown"
    assert answered(404, None, 1).state == "failed"
    assert answered(200, {"messages": [{"id": "wamid.1"}]}, 1).wamid == "wamid.1"
    assert not_sent("refused", 1).state == "queued"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda i: st.lists(i) | st.dictionaries(st.sampled_from(["error", "code", "messages", "id"]), i),
    max_leaves=8,
)


@given(st.integers(200, 599), st.dictionaries(st.sampled_from(["error", "messages"]), JSON), st.integers(1, 100))
def test_whatever_meta_answers_has_a_verdict(status: int, body: dict[str, Any], attempts: int) -> None:
    verdict = answered(status, body, attempts)
    assert verdict.state in {"queued", "accepted", "failed", "unknown"}
    assert verdict.wait >= 0


@given(st.lists(st.floats(0, 3), min_size=1, max_size=200))
def test_a_pair_never_goes_faster_than_its_rate(pauses: list[float]) -> None:
    pacing, now, sent = Pacing(number=Rate(0.0001, 10_000), pair=Rate(6.0, 5)), 0.0, list[float]()
    for pause in pauses:
        now += pause
        if pacing.take("n", "r", now) == 0:
            sent.append(now)
    for n, at in enumerate(sent):
        within = [t for t in sent[: n + 1] if at - t < 60]
        assert len(within) <= 5 + 60 / 6


def test_who_must_wait_may_go_when_the_wait_is_over_and_others_need_not_wait() -> None:
    pacing = Pacing(pair=Rate(6.0, 2))
    assert [pacing.take("n", "r", 0.0) for _ in range(3)] == [0, 0, 6.0]
    assert pacing.take("n", "other", 0.0) == 0
    assert pacing.take("n", "r", 6.0) == 0
