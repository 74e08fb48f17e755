"""Orders about contacts: what is asked, and what the bus is told. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from loquat_events.contacts import ContactErased, ContactMerged, EraseContact, MergeContacts
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.ids import fact_id

Kind = Literal["merge", "erase"]
State = Literal["waiting", "done", "refused"]

LANE: Final = "contacts"
"""One lane for all orders of a project: a merge into a contact and a merge of that contact must not pass each other."""


@dataclass(frozen=True, slots=True)
class Order:
    """An order. `into`: of a merge."""

    id: UUID
    project_id: str
    kind: Kind
    contact_id: UUID
    into: UUID | None
    ordered_by: str


def asked(event: AnyEvent) -> Order | None:
    """The order that a command gives; None if it is none."""
    match event.data:
        case MergeContacts() as data:
            return Order(event.id, data.project_id, "merge", data.contact_id, data.into, data.ordered_by)
        case EraseContact() as data:
            return Order(event.id, data.project_id, "erase", data.contact_id, None, data.ordered_by)
        case _:
            return None


def done(order: Order, people: Sequence[UUID], epoch: int, at: datetime) -> AnyEvent:
    """What the bus is told: the same event for the same order and epoch, however often."""
    data: Payload
    if order.into is not None:
        data = ContactMerged(
            project_id=order.project_id,
            order_id=order.id,
            contact_id=order.contact_id,
            into=order.into,
            epoch=epoch,
            actor=order.ordered_by,
            at=at,
        )
    else:
        data = ContactErased(
            project_id=order.project_id,
            order_id=order.id,
            contact_id=order.contact_id,
            people=tuple(people),
            epoch=epoch,
            actor=order.ordered_by,
            at=at,
        )
    fact = fact_id("contact", order.project_id, str(order.id), str(epoch))
    return Event[Payload].of(data, id=fact, source="/conversation-log", time=at, project=order.project_id, lane=LANE)
