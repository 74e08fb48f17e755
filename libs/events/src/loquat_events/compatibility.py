"""Events stay readable: a schema may only gain optional fields against the one that was committed. A breaking change is a new type."""

from __future__ import annotations

import json
from operator import gt, lt
from pathlib import Path
from typing import Any, Final

from loquat_events.catalog import TOPICS
from loquat_events.envelope import Payload

Schema = dict[str, Any]
_SAME: Final = ("type", "const", "format", "pattern", "multipleOf", "uniqueItems")
"""What is not compared by more and less: any change is one too many."""
_LOWEST: Final = ("minLength", "minItems", "minProperties", "minimum", "exclusiveMinimum")
_HIGHEST: Final = ("maxLength", "maxItems", "maxProperties", "maximum", "exclusiveMaximum")


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
    found = _narrower(old, new, path) + _fields(old, new, old_defs, new_defs, path)
    for key, sign in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            found += _differences(old[key], new[key], old_defs, new_defs, f"{path}{sign}")
    alternatives = new.get("anyOf", [new])
    for gone in (o for o in old.get("anyOf", ()) if all(_differences(o, n, old_defs, new_defs, path) for n in alternatives)):
        found.append(f"{path}: an alternative is gone or narrower: {gone.get('$ref') or gone.get('type')}")
    return found


def _narrower(old: Schema, new: Schema, path: str) -> list[str]:
    """What an old value would be refused for, or an old reader does not expect."""
    if "anyOf" in old:
        return []  # each alternative is compared by itself
    found = [f"{path}: {key} was {old.get(key)}, is {new.get(key)}" for key in _SAME if old.get(key) != new.get(key)]
    if ("enum" in old or "enum" in new) and not set(map(str, old.get("enum", ("any",)))) <= set(map(str, new.get("enum", ()))):
        found.append(f"{path}: a value of the enumeration is gone")
    for keys, tighter in ((_LOWEST, gt), (_HIGHEST, lt)):
        found += [
            f"{path}: {key} was {old.get(key)}, is {new[key]}"
            for key in keys
            if key in new and (key not in old or tighter(new[key], old[key]))
        ]
    return found


def _fields(old: Schema, new: Schema, old_defs: Schema, new_defs: Schema, path: str) -> list[str]:
    found: list[str] = []
    before, after = old.get("properties", {}), new.get("properties", {})
    for name, part in before.items():
        if name not in after:
            found.append(f"{path}.{name}: the field is gone")
            continue
        if name in new.get("required", ()) and name not in old.get("required", ()):
            found.append(f"{path}.{name}: the field has lost its default")
        found += _differences(part, after[name], old_defs, new_defs, f"{path}.{name}")
    return found + [
        f"{path}.{name}: a new field must have a default" for name in sorted(after.keys() - before.keys()) if "default" not in after[name]
    ]


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
