"""Who may say what: the catalog's word, checked before anything leaves the process. The engine checks again by login."""

from __future__ import annotations

from loquat_events.catalog import Service, Topic, topic_of, topics_by_name
from loquat_events.envelope import AnyEvent


def checked(event: AnyEvent, service: Service, topic: str | None = None) -> Topic:
    """The topic of an event that `service` wants to publish.

    Raises:
        PermissionError: the catalog does not let it.
    """
    target = topics_by_name()[topic] if topic is not None else topic_of(type(event.data))
    if not any(event.type == s.payload.TYPE and service in s.producers for s in target.types):
        raise PermissionError(f"{service} may not publish {event.type} to {target.name}")
    return target
