"""Meta's changes: every message and status ends in exactly one fact, whatever comes; the same change gives the same ids."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loquat_events.conversations import MessageReceived, PersonUpdateReceived, StatusReceived
from loquat_events.envelope import Event, Payload
from loquat_events.meta import split_change
from loquat_events.numbers import AccountUpdateReceived

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NUMBER = {"phone_number_id": "106540352242922", "display_phone_number": "15550001111"}


def change(**value: Any) -> dict[str, Any]:
    return {"field": "messages", "value": {"messaging_product": "whatsapp", "metadata": NUMBER, **value}}


def message(**more: Any) -> dict[str, Any]:
    return {"from": "4915112345671", "id": "wamid.1", "timestamp": "1790000000", **more}


@pytest.mark.parametrize(
    ("more", "kind", "text"),
    [
        ({"type": "text", "text": {"body": "hello"}}, "text", "hello"),
        ({"type": "image", "image": {"id": "1", "caption": "a cat"}}, "image", "a cat"),
        (
            {"type": "interactive", "interactive": {"type": "button_reply", "button_reply": {"id": "yes", "title": "Yes"}}},
            "interactive",
            "Yes",
        ),
        ({"type": "interactive", "interactive": {"type": "list_reply", "list_reply": {"id": "a", "title": "Row"}}}, "interactive", "Row"),
        ({"type": "interactive", "errors": [{"code": 131000}]}, "interactive", None),
        ({"type": "button", "button": {"payload": "p", "text": "Tap"}}, "button", "Tap"),
        ({"type": "reaction", "reaction": {"message_id": "wamid.0", "emoji": "\N{THUMBS UP SIGN}"}}, "reaction", "\N{THUMBS UP SIGN}"),
        ({"type": "location", "location": {"latitude": 1.5, "longitude": 2}}, "location", None),
        ({"type": "contacts", "contacts": [{"name": {"formatted_name": "B"}}]}, "contacts", None),
        ({"type": "unsupported", "errors": [{"code": 131051}]}, "unsupported", None),
        ({"type": "hologram", "hologram": {"x": "\x00\ud800"}}, "hologram", None),
        ({}, "unknown", None),
    ],
)
def test_every_type_of_message_is_one_message(more: dict[str, Any], kind: str, text: str | None) -> None:
    facts = split_change(change(contacts=[{"profile": {"name": "Anna"}, "wa_id": "4915112345671"}], messages=[message(**more)]), "waba")
    (fact,) = [f for f in facts if f.number is not None]
    assert isinstance(fact.payload, MessageReceived)
    assert (fact.payload.message.type, fact.payload.message.text, fact.payload.name) == (kind, text, "Anna")
    assert fact.lane == "4915112345671"


@pytest.mark.promise("P6")
def test_half_characters_and_nul_stand_in_the_raw_text_and_nowhere_else() -> None:
    (fact,) = split_change(change(messages=[message(type="text", text={"body": "a\x00b\ud800c"})]), "waba")
    assert isinstance(fact.payload, MessageReceived)
    assert fact.payload.message.text == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"
    assert json.loads(fact.payload.message.raw)["text"]["body"] == "a\x00b\ud800c"
    assert "\\ud800" in fact.payload.message.raw


def test_a_user_without_a_phone_number_is_known_by_the_business_scoped_id() -> None:
    given_ = change(
        contacts=[{"profile": {"name": "B", "username": "bert"}, "user_id": "DE.77"}],
        messages=[{"id": "wamid.2", "timestamp": "1790000000", "from_user_id": "DE.77", "type": "text", "text": {"body": "x"}}],
    )
    (fact,) = split_change(given_, "waba")
    assert isinstance(fact.payload, MessageReceived)
    assert [(a.kind, a.value) for a in fact.payload.addresses] == [("user_id", "DE.77"), ("username", "bert")]
    assert fact.lane == "DE.77"


def test_a_status_carries_our_message_id_error_and_price() -> None:
    ours = "0b0c7f9e-6f5f-8d57-9c0e-0d6fd29a7d11"
    status = {
        "id": "wamid.3",
        "status": "failed",
        "timestamp": "1790000000",
        "recipient_id": "49",
        "biz_opaque_callback_data": ours,
        "errors": [{"code": 131026, "title": "Undeliverable"}],
        "pricing": {"category": "service", "billable": False},
    }
    (fact,) = split_change(change(statuses=[status]), "waba")
    assert isinstance(fact.payload, StatusReceived)
    payload = fact.payload
    assert (str(payload.message_id), payload.error_code, payload.error_title, payload.pricing, payload.billable) == (
        ours,
        131026,
        "Undeliverable",
        "service",
        False,
    )
    assert fact.lane == ours


def test_a_field_that_names_a_person_goes_to_the_inbox_and_one_that_does_not_to_the_accounts() -> None:
    (person,) = split_change({"field": "user_preferences", "value": {"metadata": NUMBER}}, "waba")
    (account,) = split_change({"field": "account_alerts", "value": {}}, "waba")
    (unknown,) = split_change({"field": "from_the_future", "value": {"metadata": NUMBER}}, "waba")
    assert isinstance(person.payload, PersonUpdateReceived)
    assert isinstance(account.payload, AccountUpdateReceived)
    assert isinstance(unknown.payload, AccountUpdateReceived)


@pytest.mark.promise("P6")
@pytest.mark.promise("P2")
@given(st.fixed_dictionaries({}, optional={"field": JSON, "value": JSON}) | JSON.map(lambda v: {"field": "messages", "value": v}))
def test_any_json_is_kept_and_the_same_json_has_the_same_ids(anything: dict[str, Any]) -> None:
    facts = split_change(anything, "waba")
    assert facts
    assert [f.id for f in facts] == [f.id for f in split_change(json.loads(json.dumps(anything)), "waba")]
    _encodable([f.payload for f in facts])


@pytest.mark.promise("P6")
@given(st.lists(JSON, max_size=4), st.lists(JSON, max_size=4), JSON)
def test_each_message_and_status_of_any_shape_is_one_fact(messages: list[Any], statuses: list[Any], contacts: Any) -> None:
    facts = [f for f in split_change(change(messages=messages, statuses=statuses, contacts=contacts), "waba") if f.number is not None]
    assert len(facts) == len(messages) + len(statuses)
    _encodable([f.payload for f in facts])


def _encodable(payloads: list[Payload]) -> None:
    from datetime import UTC, datetime  # noqa: PLC0415  (only here)
    from uuid import UUID  # noqa: PLC0415

    for payload in payloads:
        event = Event[Payload].of(payload, id=UUID(int=1), source="/gateway", time=datetime.now(UTC), project="p", lane="l")
        json.loads(event.to_json())


def test_each_echo_of_the_phone_app_is_a_fact_in_its_contacts_lane_and_one_that_names_nobody_is_kept() -> None:
    sent = {"from": "1555", "id": "wamid.1", "timestamp": "1764000000", "type": "text", "text": {"body": "hello"}}
    echoes: list[Any] = [
        {**sent, "to": "491", "to_user_id": "DE.1"},
        {**sent, "id": "wamid.2", "to": "492"},
        {**sent, "id": "wamid.3"},
        "what?",
    ]
    told: dict[str, Any] = {"field": "smb_message_echoes", "value": {"metadata": {"phone_number_id": "106"}, "message_echoes": echoes}}
    facts = split_change(told, "w")
    assert [f.lane for f in facts] == ["DE.1", "492", "smb_message_echoes", "smb_message_echoes"]
    assert [f.id for f in facts] == [f.id for f in split_change(told, "w")]
    assert len({f.id for f in facts}) == 4
    first, _, nobodys, _ = (f.payload for f in facts)
    assert isinstance(first, PersonUpdateReceived)
    assert first.message is not None
    assert (first.message.text, first.message.wamid, [a.value for a in first.addresses]) == ("hello", "wamid.1", ["DE.1", "491", "491"])
    assert isinstance(nobodys, PersonUpdateReceived)
    assert (nobodys.message, json.loads(nobodys.raw)["id"]) == (None, "wamid.3")
