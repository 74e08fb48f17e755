"""`ctx.contact`: who wrote, and what the bot knows of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from loquat.database import DatabaseAway
from loquat.memory import Memory
from loquat.values import DEEPEST, NO_TEXT, as_json

LONGEST_NAME: Final = 200
LARGEST_ATTRIBUTES: Final = 64 << 10
"""Bytes of all attributes of a contact as JSON."""
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8}){0,3}")


class ContactRefused(ValueError):
    """A contact cannot have this. The text names the field and the limit."""


class Contact:
    """Who wrote. `attributes` are what the bot has noted of them; `language` is a tag such as `de` or `pt_BR`, None if nobody has set it."""

    def __init__(
        self,
        id: UUID,
        name: str | None = None,
        *,
        language: str | None = None,
        phone_number: str | None = None,
        attributes: Mapping[str, Any] | None = MappingProxyType({}),
        memory: Memory | None = None,
    ) -> None:
        self.id, self.name, self.language, self.phone_number = id, name, language, phone_number
        self.attributes: Mapping[str, Any] = MappingProxyType(dict(attributes or {}))
        self._known = attributes is not None
        self._memory = memory
        self._changes: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"Contact({self.id})"

    @property
    def memory(self) -> Memory:
        """What the bot remembers of this contact alone."""
        if self._memory is None:
            raise AttributeError("a contact has a memory in a handler")
        return self._memory

    @property
    def changes(self) -> dict[str, Any]:
        """What was set in this call, for its result."""
        return self._changes

    async def set(self, *, name: str | None = None, language: str | None = None, attributes: Mapping[str, Any] | None = None) -> None:
        """Notes what is given; it becomes true with the replies, or not at all, and queries of this handler do not see it yet.

        Attributes are added to those that are there; one that is None is removed.

        Raises:
            ContactRefused: a name of more than 200 characters, a language that is no tag, attributes of more than 64 KiB together or 32 levels.
        """
        if not self._known:
            raise DatabaseAway("the project's database is being brought forward")
        given = {"name": name, "language": language}
        changes = {**self._changes, **{k: _checked(k, v) for k, v in given.items() if v is not None}}
        merged = dict(self.attributes)
        if attributes is not None:
            given_here = as_json(dict(attributes), "the attributes", LARGEST_ATTRIBUTES, ContactRefused, deepest=DEEPEST)
            added = json.loads(given_here)
            changes["attributes"] = changes.get("attributes", {}) | added
            merged = {k: v for k, v in {**merged, **added}.items() if v is not None}
            as_json(merged, "the contact's attributes together", LARGEST_ATTRIBUTES, ContactRefused)
            as_json(changes["attributes"], "the attributes", LARGEST_ATTRIBUTES, ContactRefused)
        self._changes, self.attributes = changes, MappingProxyType(merged)
        self.name, self.language = changes.get("name", self.name), changes.get("language", self.language)


def _checked(field: str, value: object) -> str:
    if not isinstance(value, str) or NO_TEXT.search(value):
        raise ContactRefused(f"a contact's {field} is a text, not {value!r}"[:200])
    if field == "name" and not 1 <= len(value) <= LONGEST_NAME:
        raise ContactRefused(f"a contact's name has {len(value)} characters; 1 to {LONGEST_NAME} are possible")
    if field == "language" and not _LANGUAGE.fullmatch(value):
        raise ContactRefused(f"a contact's language is a tag such as 'de' or 'pt_BR', not {value!r}"[:200])
    return value
