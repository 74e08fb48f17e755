"""Events: committed samples parse for ever, schemas only grow, ids repeat, the catalog is one map, the documents are up to date."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loquat_events import catalog, ids
from loquat_events.asyncapi import document, page
from loquat_events.compatibility import incompatible, payloads, schema_of
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.replies import reply_id
from pydantic import Field, ValidationError, create_model

HOME = Path(__file__).resolve().parents[1]
DOCS = HOME.parents[1] / "docs"
TYPES = sorted(payloads())


@pytest.mark.parametrize("name", TYPES)
def test_the_committed_sample_parses_and_comes_out_the_same(name: str) -> None:
    sample = json.loads((HOME / "samples" / f"{name}.json").read_text())
    event = catalog.parse(json.dumps(sample).encode())
    assert isinstance(event.data, payloads()[name])
    assert catalog.parse(event.to_json()) == event
    said = json.loads(event.to_json())["data"]
    assert {
        k: v for k, v in sample["data"].items() if k not in {"sent_at", "at", "queued_at", "attached_at", "received_at"}
    }.items() <= said.items()


@pytest.mark.parametrize("name", TYPES)
def test_readers_ignore_what_they_do_not_know_and_producers_may_not_say_it(name: str) -> None:
    sample = json.loads((HOME / "samples" / f"{name}.json").read_text())
    sample["data"]["from_the_future"] = 1
    catalog.parse(json.dumps(sample).encode())
    with pytest.raises(ValidationError):
        payloads()[name].model_validate(sample["data"], extra="forbid")


@pytest.mark.parametrize("name", TYPES)
def test_a_schema_only_grows_by_optional_fields(name: str) -> None:
    committed = json.loads((HOME / "schemas" / f"{name}.json").read_text())
    assert incompatible(committed, schema_of(payloads()[name]), name) == []


BREAKS: list[tuple[Callable[[Any], object], str]] = [
    (lambda s: s["properties"].pop("status"), "the field is gone"),
    (lambda s: s["properties"]["attempt"].update(type="string"), "type was integer"),
    (lambda s: s["properties"].update(fresh={"type": "string"}), "must have a default"),
    (lambda s: s["properties"]["status"]["enum"].remove("failed"), "a value of the enumeration is gone"),
]


@pytest.mark.parametrize(("change", "named"), BREAKS)
def test_a_breaking_change_of_a_schema_is_named(change: Callable[[Any], object], named: str) -> None:
    old = schema_of(payloads()["message.outcome.v1"])
    new = json.loads(json.dumps(old))
    change(new)
    assert any(named in line for line in incompatible(old, new))


class Before(Payload):
    TYPE = "tests.before.v1"
    note: str | None = None
    word: Annotated[str, Field(min_length=1, max_length=10, pattern="^a")]
    free: str
    count: Annotated[int, Field(ge=1, le=9)] = 1
    parts: tuple[Annotated[str, Field(max_length=10)], ...] = ()
    either: Annotated[str, Field(max_length=10)] | None = None


NARROWED: list[tuple[str, Any, str]] = [
    ("note", (str | None, ...), r"\.note: the field has lost its default"),
    ("count", (Annotated[int, Field(ge=1, le=9)], ...), r"\.count: the field has lost its default"),
    ("word", (Annotated[str, Field(min_length=2, max_length=10, pattern="^a")], ...), r"\.word: minLength was 1, is 2"),
    ("word", (Annotated[str, Field(min_length=1, max_length=9, pattern="^a")], ...), r"\.word: maxLength was 10, is 9"),
    ("word", (Annotated[str, Field(min_length=1, max_length=10, pattern="^b")], ...), r"\.word: pattern was \^a, is \^b"),
    ("free", (Annotated[str, Field(max_length=9)], ...), r"\.free: maxLength was None, is 9"),
    ("free", (Annotated[str, Field(pattern="^a")], ...), r"\.free: pattern was None, is \^a"),
    ("free", (Literal["one", "two"], ...), r"\.free: a value of the enumeration is gone"),
    ("count", (Annotated[int, Field(ge=2, le=9)], 2), r"\.count: minimum was 1, is 2"),
    ("count", (Annotated[int, Field(ge=1, le=8)], 1), r"\.count: maximum was 9, is 8"),
    ("parts", (tuple[Annotated[str, Field(max_length=9)], ...], ()), r"\.parts\[\]: maxLength was 10, is 9"),
    ("either", (Annotated[str | None, Field(max_length=9)], None), r"\.either: an alternative is gone or narrower: string"),
    ("either", (Annotated[str, Field(max_length=10)], ""), r"\.either: an alternative is gone or narrower: null"),
]


@pytest.mark.parametrize(("name", "field", "named"), NARROWED)
def test_a_field_that_takes_less_than_before_or_lost_its_default_is_named(name: str, field: Any, named: str) -> None:
    after = create_model("After", __base__=Before, **{name: field})
    (line,) = incompatible(schema_of(Before), schema_of(after))
    assert re.match(named, line)


def test_a_field_that_takes_more_than_before_is_compatible() -> None:
    wider: Any = {"word": (Annotated[str, Field(max_length=20, pattern="^a")], ...), "count": (int, 1), "fresh": (str | None, None)}
    assert incompatible(schema_of(Before), schema_of(create_model("After", __base__=Before, **wider))) == []


def test_every_type_has_one_topic_and_every_topic_one_name_and_known_services() -> None:
    names = [t.name for t in catalog.TOPICS]
    assert len(names) == len(set(names))
    alive = [s.payload.TYPE for t in catalog.TOPICS if not t.name.endswith(".dead") for s in t.types]
    assert len(alive) == len(set(alive))
    for topic in catalog.TOPICS:
        assert {*topic.producers, *topic.consumers} <= set(catalog.SERVICES), topic.name


def test_an_unknown_type_is_named() -> None:
    sample = json.loads((HOME / "samples" / "project.ready.v1.json").read_text()) | {"type": "project.ready.v9"}
    with pytest.raises(catalog.UnknownType, match="v9"):
        catalog.parse(json.dumps(sample).encode())


@pytest.mark.promise("P2")
@given(st.text(), st.text())
def test_the_same_fact_has_the_same_id_and_another_one_another(one: str, two: str) -> None:
    clean = [t.encode(errors="ignore").decode().replace("\x1f", " ") for t in (one, two)]
    assert ids.message_id(clean[0], clean[1]) == ids.message_id(clean[0], clean[1])
    if clean[0] != clean[1]:
        assert ids.message_id("n", clean[0]) != ids.message_id("n", clean[1])
        assert ids.message_id(clean[0], "w") != ids.message_id(clean[1], "w")


def test_a_replys_id_is_a_version_8_that_never_changes() -> None:
    assert reply_id(UUID(int=7), 1) == reply_id(UUID(int=7), 1)
    assert reply_id(UUID(int=7), 1).version == 8
    assert len({reply_id(UUID(int=7), n) for n in range(50)}) == 50


def test_an_event_wraps_its_data_whole_whatever_the_parameter() -> None:
    sample = json.loads((HOME / "samples" / "wa.message.received.v1.json").read_text())
    event = catalog.parse(json.dumps(sample).encode())
    again: AnyEvent = Event[Payload].of(
        event.data, id=event.id, source=event.source, time=event.time, project=event.projectid, lane=event.lane
    )
    assert json.loads(again.to_json())["data"]["message"]["text"] == "hello"


def test_the_generated_documents_are_those_of_the_catalog() -> None:
    assert json.loads((DOCS / "asyncapi.json").read_text()) == json.loads(json.dumps(document("0.1.0"))), "run `make docs`"
    assert (DOCS / "events.md").read_text() == page(), "run `make docs`"


def test_every_channel_and_message_of_the_document_is_there() -> None:
    made = document("0.1.0")
    for operation in made["operations"].values():
        channel = operation["channel"]["$ref"].rpartition("/")[2]
        assert channel in made["channels"]
        for message in operation["messages"]:
            assert message["$ref"].rpartition("/")[2] in made["channels"][channel]["messages"]
