"""What a bot is called with, by what has happened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loquat_events.conversations import MessageReceived, ScheduleFired, TimerFired
from loquat_events.elements import clean
from loquat_events.envelope import AnyEvent
from loquat_events.projects import ProjectListed

from loquat_bot_runner.ports import Begun, Known, Task


def task_of(project: ProjectListed, version: str, event: AnyEvent, begun: Begun, known: Known, secrets: Mapping[str, str]) -> Task:
    """Of a message, a timer or a schedule: a timer has the data of the project's own row."""
    timed: dict[str, Any] = begun.timed or {}
    if begun.todo == "observe":  # an observer's timers are not set, which is no reason to wait for anything
        timed = {"timers": [], **timed}
    happening: dict[str, Any] = {"id": str(event.id)}
    contact: dict[str, Any] = {"id": str(begun.contact_id), **known.contact}
    conversation: dict[str, Any] = {"id": str(begun.conversation_id), **({"timers": timed["timers"]} if "timers" in timed else {})}
    if isinstance(event.data, MessageReceived):
        message = event.data.message
        happening |= {
            "type": clean(message.type),
            "text": clean(message.text),
            "content": clean(message.content),
            "wamid": message.wamid,
            "reply_to": message.reply_to,
        }
        contact = {"name": clean(event.data.name), **contact}
        conversation["number_id"] = event.data.number_id
    elif isinstance(event.data, TimerFired):
        fired: dict[str, Any] = timed.get("fired") or {}
        happening["timer"] = {"name": event.data.name, "due_at": event.data.due_at.isoformat(), "data": fired.get("data")}
        conversation["number_id"] = timed.get("number_id") or ""
    elif isinstance(event.data, ScheduleFired):
        manual = event.data.ordered_by is not None
        happening["schedule"] = {"name": event.data.name, "due_at": event.data.due_at.isoformat(), "manual": manual}
        contact, conversation = {}, {}
    return Task(
        project,
        version,
        event=happening,
        contact=contact,
        conversation=conversation,
        state=begun.state,
        state_version=begun.version,
        config=known.config,
        secrets=secrets,
        observing=begun.todo == "observe",
        join_texts=begun.conduct.join_texts,
        ask=begun.ask,
        following=begun.following,
    )
