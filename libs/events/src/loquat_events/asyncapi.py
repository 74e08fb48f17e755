"""AsyncAPI 3 of the catalog. Pure: the same catalog gives the same document."""

from __future__ import annotations

from typing import Any, Final

from pydantic import TypeAdapter

from loquat_events.catalog import TOPICS, Topic
from loquat_events.envelope import Event, Payload

_REF: Final = "#/components/schemas/{model}"
_TITLE: Final = "Loquat events"


def document(version: str) -> dict[str, Any]:
    """The document: a channel per topic, a message per type, what each service sends and receives."""
    payloads = {s.payload.TYPE: s.payload for t in TOPICS for s in t.types}
    adapters: list[tuple[str, Any, TypeAdapter[Any]]] = [(name, "serialization", TypeAdapter(p)) for name, p in payloads.items()]
    envelope: TypeAdapter[Any] = TypeAdapter(Event[Payload])
    schemas, definitions = TypeAdapter.json_schemas([*adapters, ("envelope", "serialization", envelope)], ref_template=_REF)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": _TITLE, "version": version, "license": {"name": "Apache-2.0"}},
        "defaultContentType": "application/json",
        "channels": {t.name: _channel(t) for t in TOPICS},
        "operations": {name: operation for t in TOPICS for name, operation in _operations(t).items()},
        "components": {
            "messages": {name: _message(name, payloads[name], schemas[name, "serialization"]) for name in payloads},
            "schemas": {**definitions.get("$defs", {}), "Envelope": schemas["envelope", "serialization"]},
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    notes = f"{topic.partitions} partitions, " + ("compacted" if topic.compacted else f"kept {topic.retention_days} days")
    messages = {s.payload.TYPE: {"$ref": f"#/components/messages/{s.payload.TYPE}"} for s in topic.types}
    return {"address": topic.name, "summary": topic.purpose, "description": notes, "messages": messages}


def _operations(topic: Topic) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for service in topic.producers:
        said = [s.payload.TYPE for s in topic.types if service in s.producers]
        found[f"{service} sends {topic.name}"] = _operation("send", topic, said)
    for service in topic.consumers:
        found[f"{service} receives {topic.name}"] = _operation("receive", topic, [s.payload.TYPE for s in topic.types])
    return {name.replace(" ", "."): operation for name, operation in found.items()}


def _operation(action: str, topic: Topic, types: list[str]) -> dict[str, Any]:
    place = topic.name.replace("/", "~1")
    messages = [{"$ref": f"#/channels/{place}/messages/{name}"} for name in types]
    return {"action": action, "channel": {"$ref": f"#/channels/{place}"}, "messages": messages}


def _message(name: str, payload: type[Payload], schema: dict[str, Any]) -> dict[str, Any]:
    envelope = {
        "allOf": [{"$ref": "#/components/schemas/Envelope"}, {"type": "object", "properties": {"type": {"const": name}, "data": schema}}]
    }
    return {"name": name, "title": payload.__name__, "summary": (payload.__doc__ or "").strip().splitlines()[0], "payload": envelope}


def page() -> str:
    """The same for people: a table per topic, in Markdown."""
    lines = [
        "# Topics and events",
        "",
        "Made from `libs/events/src/loquat_events/catalog.py` by `make docs`. The machine's form is `asyncapi.json`.",
        "",
    ]
    for topic in TOPICS:
        kept = "compacted" if topic.compacted else f"{topic.retention_days} days"
        readers = ", ".join(topic.consumers) or "tools outside"
        lines += [
            f"## {topic.name}",
            "",
            f"{topic.purpose[0].upper()}{topic.purpose[1:]}. {topic.partitions} partitions, {kept}. Read by {readers}.",
            "",
        ]
        lines += ["| type | said by | what |", "|---|---|---|"]
        for spoken in topic.types:
            summary = (spoken.payload.__doc__ or "").strip().splitlines()[0]
            lines.append(f"| `{spoken.payload.TYPE}` | {', '.join(spoken.producers)} | {summary} |")
        lines.append("")
    return "\n".join(lines)
