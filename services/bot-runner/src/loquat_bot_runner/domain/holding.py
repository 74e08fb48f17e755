"""Who holds a conversation, decided from orders of people; and what a project has set about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loquat_events.conversations import HoldOrdered, SendOrdered


@dataclass(frozen=True, slots=True)
class Conduct:
    """What of a project's settings matters to a call; the rest (failures, age) is decided in its database."""

    take_over: bool = False
    join_texts: bool = False

    @classmethod
    def of(cls, settings: Mapping[str, Any] | None) -> Conduct:
        """As the project's database tells them; None: it is not brought forward yet."""
        known = settings or {}
        return cls(known.get("take_over") is True, known.get("join_texts") is True)


def sending(order: SendOrdered, conduct: Conduct) -> dict[str, Any]:
    """The result of an order to send. What a schedule sends takes nothing over."""
    takes = order.sender == "person" and (conduct.take_over if order.take_over is None else order.take_over)
    return {
        "replies": [order.message.model_dump(exclude_none=True)],
        "ordered_by": order.ordered_by,
        "sender": order.sender,
        **({"hold": {"kind": "person", "who": order.ordered_by}} if takes else {}),
    }


def holding(order: HoldOrdered, conversation: object) -> dict[str, Any]:
    """The result of an order to hold. The conversation that it meant may be closed by now, and another one open: that one is nobody's."""
    result: dict[str, Any] = {"replies": [], "ordered_by": order.ordered_by}
    if order.conversation_id != conversation:
        return result
    if order.holder is not None:
        who = order.ordered_by if order.holder == "person" else None
        result["hold"] = {"kind": order.holder, "who": who, "seconds": order.seconds, "note": order.note}
    return {**result, "resolved": True} if order.resolved else result


def silenced(result: Mapping[str, Any]) -> dict[str, Any]:
    """An observer's result: what it noted of the contact stands, and it says nothing."""
    return {"replies": [], **{k: v for k, v in result.items() if k in {"contact", "queries"}}}
