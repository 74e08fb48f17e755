"""What comes from WhatsApp, from the webhook's JSON to the type that a handler sees: through the platform's own reader, no shape by heart."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as some
from loquat import (
    Audio,
    Bot,
    ButtonReply,
    Card,
    Contacts,
    Context,
    Document,
    FlowReply,
    Image,
    ListReply,
    Location,
    Message,
    Reaction,
    Sticker,
    Text,
    Unknown,
    Video,
)
from loquat.messages import read
from loquat.testing import BotTester
from loquat_events.conversations import MessageReceived
from loquat_events.elements import clean
from loquat_events.meta import split_change


def flow(answer: str, name: str = "flow") -> dict[str, Any]:
    return {"type": "nfm_reply", "nfm_reply": {"name": name, "body": "Sent", "response_json": answer}}


FILE = {"id": "m1", "mime_type": "x/y", "sha256": "abc"}
KINDS: list[tuple[str, dict[str, Any] | list[Any], type[Message], dict[str, Any]]] = [
    ("text", {"body": "hi"}, Text, {"text": "hi"}),
    ("image", {**FILE, "caption": "look"}, Image, {"media_id": "m1", "mime_type": "x/y", "sha256": "abc", "caption": "look"}),
    ("video", FILE, Video, {"media_id": "m1", "caption": None}),
    ("audio", {**FILE, "voice": True}, Audio, {"voice": True}),
    ("document", {**FILE, "filename": "a.pdf"}, Document, {"filename": "a.pdf"}),
    ("sticker", {**FILE, "animated": False}, Sticker, {"animated": False}),
    ("location", {"latitude": 1, "longitude": "2.5", "name": "Here"}, Location, {"longitude": 2.5, "name": "Here", "address": None}),
    ("button", {"payload": "p1", "text": "Yes"}, ButtonReply, {"choice_id": "p1", "title": "Yes", "button_id": "p1", "text": "Yes"}),
    ("interactive", {"type": "button_reply", "button_reply": {"id": "b", "title": "B"}}, ButtonReply, {"button_id": "b", "text": "B"}),
    (
        "interactive",
        {"type": "list_reply", "list_reply": {"id": "r", "title": "R", "description": "D"}},
        ListReply,
        {"choice_id": "r", "button_id": "r", "title": "R", "description": "D"},
    ),
    (
        "interactive",
        flow('{"flow_token": "booking:7f", "day": "2026-01-05", "people": 2, "note": "a\\u0000b"}'),
        FlowReply,
        {"flow": "booking", "token": "booking:7f", "data": {"day": "2026-01-05", "people": 2, "note": "a\N{REPLACEMENT CHARACTER}b"}},
    ),
    ("interactive", flow('{"flow_token": "unused", "x": 1}'), FlowReply, {"flow": None, "token": None, "data": {"x": 1}, "problem": None}),
    ("interactive", flow('{"x": '), FlowReply, {"flow": None, "data": {}, "problem": "its response_json is no JSON"}),
    ("interactive", flow("[1]"), FlowReply, {"data": {}, "problem": "its response_json is no object"}),
    ("interactive", flow('{"x":' + "[" * 5000 + "]" * 5000 + "}"), FlowReply, {"data": {}, "problem": "its response_json is no JSON"}),
    ("interactive", flow('{"x":' + "[" * 32 + "]" * 32 + "}"), FlowReply, {"problem": "its response_json has more than 32 levels"}),
    ("interactive", flow('{"x":' + "[" * 31 + "]" * 31 + "}"), FlowReply, {"problem": None}),
    ("interactive", flow("{}", name="address_message"), Unknown, {}),
    (
        "contacts",
        [{"name": {"formatted_name": "Bob"}, "phones": [{"phone": "+49"}], "emails": [{"email": "b@x"}]}, {}],
        Contacts,
        {"cards": (Card("Bob", ("+49",), ("b@x",)), Card(None, (), ()))},
    ),
    (
        "reaction",
        {"message_id": "wamid.7", "emoji": "\N{THUMBS UP SIGN}"},
        Reaction,
        {"emoji": "\N{THUMBS UP SIGN}", "reply_to": "wamid.7"},
    ),
    ("reaction", {"message_id": "wamid.7", "emoji": ""}, Reaction, {"emoji": None}),
    ("order", {"catalog_id": "c"}, Unknown, {"raw": {"type": "order", "order": {"catalog_id": "c"}}, "button_id": None}),
    ("location", {"latitude": "north"}, Unknown, {"raw": {"type": "location", "location": {"latitude": "north"}}}),
    ("contacts", ["Bob"], Unknown, {"raw": {"type": "contacts", "contacts": ["Bob"]}}),
    ("interactive", {"type": "nfm_reply", "nfm_reply": {"response_json": "{}"}}, FlowReply, {"data": {}, "problem": None}),
    ("interactive", {"type": "nfm_reply", "nfm_reply": "x"}, Unknown, {"type": "interactive"}),
]


def received(kind: str, content: Any) -> dict[str, Any]:
    """What a worker gets: see `_result` in bot-runner's `handlers/inbox.py`."""
    message = {"id": "wamid.1", "from": "49151", "timestamp": "1767600000", "type": kind, kind: content}
    (fact,) = split_change({"field": "messages", "value": {"metadata": {"phone_number_id": "1"}, "messages": [message]}}, "2")
    assert isinstance(fact.payload, MessageReceived)
    said = fact.payload.message
    return {
        "id": str(fact.id),
        "type": clean(said.type),
        "text": clean(said.text),
        "content": clean(said.content),
        "wamid": said.wamid,
        "reply_to": said.reply_to,
    }


@pytest.mark.parametrize(("kind", "content", "expected", "fields"), KINDS)
def test_a_message_has_the_type_and_fields_of_its_kind(kind: str, content: Any, expected: type[Message], fields: dict[str, Any]) -> None:
    message = read(received(kind, content))
    assert type(message) is expected
    assert {f: getattr(message, f) for f in fields} == fields
    assert message.wamid == "wamid.1"


@pytest.mark.promise("P6")
@given(
    some.sampled_from(["text", "interactive", "button", "image", "audio", "location", "contacts", "reaction", "zzz"]),
    some.recursive(
        some.none() | some.booleans() | some.integers() | some.text(),
        lambda inner: (
            some.lists(inner)
            | some.dictionaries(some.text() | some.sampled_from(["id", "button_reply", "nfm_reply", "value", "latitude"]), inner)
        ),
    ),
)
def test_whatever_json_a_contact_sends_is_some_message(kind: str, content: Any) -> None:
    assert isinstance(read(received(kind, content)), Message)


async def test_the_tester_sends_what_the_platform_would_hand_over() -> None:
    seen: list[Message] = []
    bot = Bot()

    @bot.fallback
    async def look(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        seen.append(ctx.event)
        ctx.reply_buttons("?", [("b", "B")])
        ctx.reply_list("?", "Open", [("r", "R", "D")])

    tester = BotTester(bot)
    await tester.send("hi")
    await tester.tap("b")
    await tester.pick("r")
    await tester.send_image("look", media_id="m1", mime_type="x/y")
    await tester.send_location(1.0, 2.5, "Here")
    await tester.send_contact("Bob", "+49")
    await tester.react("\N{THUMBS UP SIGN}", to="wamid.7")
    await tester.submit_flow("booking:7f", {"people": 2})
    meant: list[tuple[str, Any]] = [
        ("text", {"body": "hi"}),
        ("interactive", {"type": "button_reply", "button_reply": {"id": "b", "title": "B"}}),
        ("interactive", {"type": "list_reply", "list_reply": {"id": "r", "title": "R", "description": "D"}}),
        ("image", {"id": "m1", "sha256": "", "mime_type": "x/y", "caption": "look"}),
        ("location", {"latitude": 1.0, "longitude": 2.5, "name": "Here"}),
        ("contacts", [{"name": {"formatted_name": "Bob"}, "phones": [{"phone": "+49"}]}]),
        ("reaction", {"message_id": "wamid.7", "emoji": "\N{THUMBS UP SIGN}"}),
        ("interactive", flow('{"flow_token": "booking:7f", "people": 2}')),
    ]
    assert [_bare(m) for m in seen] == [_bare(read(received(kind, content))) for kind, content in meant]


def _bare(message: Message) -> dict[str, Any]:
    """Without what is of each one's own."""
    fields = {name: getattr(message, name) for name in type(message).__match_args__}
    assert isinstance(fields.pop("id"), UUID)
    fields.pop("wamid")
    return {"kind": type(message), **fields}
