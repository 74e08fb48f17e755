"""A bot speaks before its handler ends: what it says is durable in the project's database, then on the bus; that it writes goes to the bus alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from loquat_common.bus.port import Bus, BusUnavailable
from loquat_common.db import DatabaseAway, is_gone
from loquat_common.failpoints import Failpoints
from loquat_common.logs import get_logger
from loquat_events.conversations import MessageQueued, MessageReceived, TimerFired, TypingBegun
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.ids import change_id
from loquat_events.projects import ProjectListed

from loquat_bot_runner.errors import Superseded, Unsaid
from loquat_bot_runner.ports import Begun, Runs


class Voices:
    """The voices of runs, and what a run that was cut off has left unsaid."""

    def __init__(self, runs: Runs, bus: Bus, failpoints: Failpoints, clock: Callable[[], datetime]) -> None:
        self._runs, self._bus, self._failpoints, self._clock = runs, bus, failpoints, clock

    def of(self, project: ProjectListed, event: AnyEvent, begun: Begun) -> RunVoice | None:
        """None: nobody is there, or the bot only watches."""
        if begun.todo == "observe" or not isinstance(event.data, MessageReceived | TimerFired):
            return None
        return RunVoice(self, project, event, begun.version)

    async def publish(self, project: ProjectListed, event: UUID, outbox: list[dict[str, Any]]) -> None:
        """These messages, then their rows go. A crash in between publishes them again, with the same ids."""
        if not outbox:
            return
        await self._bus.publish(*(queued(project, event, row, self._clock()) for row in outbox))
        self._failpoints.hit("bot_runner.after_now_publish")
        await self._runs.clear_said(project, [UUID(row["message_id"]) for row in outbox])
        self._failpoints.hit("bot_runner.after_now_clear")

    async def say(self, project: ProjectListed, event: UUID, version: int, answered: UUID, place: int, reply: dict[str, Any]) -> None:
        """Durable when it returns. If it cannot be published, whoever ends or begins the event again does it.

        Raises:
            Superseded: another run was first.
            Unsaid: somebody holds the conversation.
        """
        self._failpoints.hit("bot_runner.before_say")
        spoken = await self._runs.say(project, event, version, answered, place, reply)
        self._failpoints.hit("bot_runner.after_say")
        if spoken.status == "superseded":
            raise Superseded("another run was first")
        if spoken.status == "held":
            raise Unsaid("somebody holds the conversation")
        try:
            await self.publish(project, event, spoken.outbox)
        except Exception as error:
            if not (isinstance(error, BusUnavailable | DatabaseAway) or is_gone(error)):
                raise
            get_logger().warning("bot.said_waits", error=type(error).__name__)

    async def typing(self, project: ProjectListed, event: AnyEvent) -> None:
        """Not for a timer: what is shown goes with a message of the contact's."""
        if not isinstance(event.data, MessageReceived):
            return
        now = self._clock()
        begun = TypingBegun(number_id=event.data.number_id, wamid=event.data.message.wamid, at=now)
        key = change_id(event.id, f"typing {now.isoformat()}")
        await self._bus.publish(
            Event[Payload].of(begun, id=key, source="/bot-runner", time=now, project=project.project_id, lane=event.lane)
        )


class RunVoice:
    """See `ports.Voice`: of one run of an event, at one version of its conversation."""

    def __init__(self, voices: Voices, project: ProjectListed, event: AnyEvent, version: int) -> None:
        self._voices, self._project, self._event, self._version = voices, project, event, version
        self.said = 0

    async def say(self, answered: UUID, place: int, reply: dict[str, Any]) -> None:
        """See `ports.Voice`."""
        await self._voices.say(self._project, self._event.id, self._version, answered, place, reply)
        self.said += 1

    async def typing(self) -> None:
        """See `ports.Voice`."""
        await self._voices.typing(self._project, self._event)


def queued(project: ProjectListed, cause: UUID, row: Mapping[str, Any], now: datetime) -> AnyEvent:
    """A row of the outbox as the event that tells of it."""
    message = MessageQueued.model_validate({**row, "cause": cause, "message": row["body"]})
    lane = message.addresses[0].value if message.addresses else str(message.contact_id)
    return Event[Payload].of(message, id=message.message_id, source="/bot-runner", time=now, project=project.project_id, lane=lane)
