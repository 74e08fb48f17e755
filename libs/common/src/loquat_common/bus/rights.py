"""Who may say what: the catalog's word, checked before anything leaves the process. The engine checks again by login."""

from __future__ import annotations

from functools import cache

from loquat_events.catalog import Service, Topic, topic_of, topics_by_name
from loquat_events.envelope import AnyEvent, Payload


def checked(event: AnyEvent, service: Service, topic: str | None = None) -> Topic:
    """The topic of an event that `service` wants to publish.

    Raises:
        PermissionError: the catalog does not let it.
    """
    return _allowed(type(event.data), event.type, service, topic)


@cache
def _allowed(payload: type[Payload], kind: str, service: Service, topic: str | None) -> Topic:
    target = topics_by_name()[topic] if topic is not None else topic_of(payload)
    if not any(kind == s.payload.TYPE and service in s.producers for s in target.types):
        raise PermissionError(f"{service} may not publish {kind} to {target.name}")
    return target
