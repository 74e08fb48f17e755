"""An event as engines carry it: its bytes, and what is needed to place it."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

import orjson
from loquat_events.catalog import Topic
from loquat_events.envelope import AnyEvent

from loquat_common.bus.port import EventTooLarge

LARGEST: Final = 26 << 20
"""Bytes of an event: room for the largest that a webhook's body can become, so that none is refused for ever.

The gateway takes bodies of 3 MB + 64 KB (3,211,264 bytes). A message stands in its event twice: as `raw`, JSON written inside of JSON, and
as `content`. Bytes of the event per byte of the body, at worst: plain text 2; quotes and backslashes 3; two-byte letters beside half a
character, for which all is escaped, 4.5; numbers such as `1e15`, written out, 7.8: 25,047,860 bytes. `text`, at most 100,000 characters
of 6 bytes, and the envelope come on top. Meta sends nothing near it; tests in the gateway hold the numbers.
"""


class Record(NamedTuple):
    """`value` is the whole event; empty, it is a tombstone of a compacted topic."""

    id: str
    project: str
    lane: str
    value: bytes

    @classmethod
    def of(cls, event: AnyEvent) -> Record:
        """For publishing.

        Raises:
            EventTooLarge: it has more than `LARGEST` bytes.
        """
        value = event.to_json()
        if len(value) > LARGEST:
            raise EventTooLarge(len(value))
        return cls(str(event.id), event.projectid, event.lane, value)

    @classmethod
    def read(cls, key: str, value: bytes | None) -> Record:
        """From a log that keeps a key and a value. Bytes that are no event still have their place, by the key."""
        project, _, lane = key.partition(":")
        if not value:
            return cls("", project, lane, b"")
        try:
            found = orjson.loads(value)
            return cls(str(found["id"]), str(found["projectid"]), str(found["lane"]), value)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return cls("", project or "unknown", lane or "unknown", value)

    @property
    def key(self) -> str:
        """The record key: project and lane."""
        return f"{self.project}:{self.lane}"


def partition_of(project: str, lane: str, topic: Topic) -> int:
    """The partition of a project's lane, the same on every engine.

    A project has one partition; a giant has `topic.shards[project]` consecutive ones, chosen by the lane. Both numbers are constants of
    the topic: changing them moves lanes while their earlier events are under way, and a lane's rows stay where they came from.
    """
    shards = min(topic.shards.get(project, 1), topic.partitions)
    shard = _hash(f"{project}:{lane}") % shards if shards > 1 else 0
    return (_hash(project) + shard) % topic.partitions


@lru_cache(maxsize=50_000)
def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
