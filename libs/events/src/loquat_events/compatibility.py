"""Events stay readable: a schema may only gain optional fields against the one that was committed. A breaking change is a new type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loquat_events.catalog import TOPICS
from loquat_events.envelope import Payload

Schema = dict[str, Any]


def payloads() -> dict[str, type[Payload]]:
    """Every payload by its type string."""
    return {s.payload.TYPE: s.payload for t in TOPICS for s in t.types}


def schema_of(payload: type[Payload]) -> Schema:
    """What a reader may rely on."""
    return payload.model_json_schema(mode="serialization")


def incompatible(old: Schema, new: Schema, path: str = "") -> list[str]:
    """What of `old` a reader could miss in `new`, or a writer of `old` would be refused for. Empty: compatible."""
    old, new = _resolved(old, old), _resolved(new, new)
    return _differences(old, new, old.get("$defs", {}), new.get("$defs", {}), path)


def _resolved(schema: Schema, root: Schema) -> Schema:
    reference: str = schema.get("$ref", "")
    return {**root["$defs"][reference.rpartition("/")[2]], "$defs": root["$defs"]} if reference else schema


def _differences(old: Schema, new: Schema, old_defs: Schema, new_defs: Schema, path: str) -> list[str]:
    old, new = _look(old, old_defs), _look(new, new_defs)
    found = [
        f"{path}: {key} was {old[key]}, is {new.get(key)}" for key in ("type", "const", "format") if key in old and old[key] != new.get(key)
    ]
    if "enum" in old and not set(map(str, old["enum"])) <= set(map(str, new.get("enum", ()))):
        found.append(f"{path}: a value of the enumeration is gone")
    for name, part in old.get("properties", {}).items():
        if name not in new.get("properties", {}):
            found.append(f"{path}.{name}: the field is gone")
        else:
            found += _differences(part, new["properties"][name], old_defs, new_defs, f"{path}.{name}")
    fresh = new.get("properties", {}).keys() - old.get("properties", {}).keys()
    found += [f"{path}.{name}: a new field must have a default" for name in sorted(fresh) if "default" not in new["properties"][name]]
    if "items" in old and "items" in new:
        found += _differences(old["items"], new["items"], old_defs, new_defs, f"{path}[]")
    if "anyOf" in old and len(new.get("anyOf", ())) < len(old["anyOf"]):
        found.append(f"{path}: an alternative is gone")
    return found


def _look(schema: Schema, defs: Schema) -> Schema:
    reference: str = schema.get("$ref", "")
    return defs[reference.rpartition("/")[2]] if reference else schema


def refresh(folder: Path) -> list[str]:
    """Writes the schemas of all types; what would break a reader is not written, and answered."""
    folder.mkdir(exist_ok=True)
    broken: list[str] = []
    for name, payload in payloads().items():
        file, new = folder / f"{name}.json", schema_of(payload)
        found = incompatible(json.loads(file.read_text()), new, name) if file.exists() else []
        broken += found
        if not found:
            file.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n")
    return broken
