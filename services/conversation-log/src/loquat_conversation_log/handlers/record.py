"""Batches of one project: recorded together, or, when the data is at fault, halved until the one that is bad stands alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from loquat_common import metrics
from loquat_common.bus.port import Bus, Dead, Defer, Done, Outcome, Received
from loquat_common.db import WrongDatabase
from loquat_common.directory import Directory
from loquat_common.failpoints import Failpoints
from loquat_events.conversations import MessageChanged, MessageOutcome, MessageQueued, MessageReceived, StatusReceived
from loquat_events.elements import inbound
from loquat_events.envelope import AnyEvent, Event
from loquat_events.ids import change_id
from loquat_events.projects import ProjectListed

from loquat_conversation_log.domain.entries import outbound, receipt
from loquat_conversation_log.ports import Poison, Record

_NOT_YET = 1.0  # seconds until a project that is being made is looked at again


class Recorder:
    """The handler of inbox, outbox and receipts."""

    def __init__(self, record: Record, directory: Directory, bus: Bus, failpoints: Failpoints, clock: Callable[[], datetime]) -> None:
        self._record, self._directory, self._bus = record, directory, bus
        self._failpoints, self._clock = failpoints, clock

    async def handle(self, batch: Sequence[Received]) -> Sequence[Outcome]:
        """An outcome per event. All are of one project."""
        project = self._directory.get(batch[0].event.projectid)
        if project is None:
            return [self._of_nobody(received.event) for received in batch]
        if project.state not in {"ready", "deleting"}:
            return [Defer(_NOT_YET, f"the project is {project.state}") for _ in batch]
        self._failpoints.hit("conversation_log.before_record")
        try:
            outcomes = await self._halving(project, list(batch))
        except WrongDatabase:
            return [Defer(_NOT_YET, "the directory is out of date") for _ in batch]
        self._failpoints.hit("conversation_log.after_record")
        await self._bus.publish(*(change for outcome in outcomes if isinstance(outcome, Done) for change in outcome.publish))
        self._failpoints.hit("conversation_log.after_changes")
        return [Done() if isinstance(outcome, Done) else outcome for outcome in outcomes]

    def _of_nobody(self, event: AnyEvent) -> Outcome:
        """A deleted project has no place to record it in; a directory that is behind may not know a new one yet."""
        if not self._directory.is_gone(event.projectid, event.time, self._clock()):
            return Defer(_NOT_YET, "the directory does not know the project yet")
        metrics.bus_orphans.labels("conversation-log").inc()
        return Done()

    async def _halving(self, project: ProjectListed, batch: list[Received]) -> list[Outcome]:
        try:
            return await self._all(project, batch)
        except Poison as poison:
            if len(batch) == 1:
                return [Dead(f"the project's database cannot take it: {poison}")]
            middle = len(batch) // 2
            return await self._halving(project, batch[:middle]) + await self._halving(project, batch[middle:])

    async def _all(self, project: ProjectListed, batch: list[Received]) -> list[Outcome]:
        """Inbound first: an outbound message may belong to a conversation that opens in the same batch."""
        events = [r.event for r in batch]
        conversations = await self._inbound(project, events)
        if queued := [outbound(e.data) for e in events if isinstance(e.data, MessageQueued)]:
            await self._record.outbound(project, queued)
        if receipts := [receipt(e.data) for e in events if isinstance(e.data, StatusReceived | MessageOutcome)]:
            await self._record.receipts(project, receipts)
        return [Done(self._changes(e, conversations)) for e in events]

    async def _inbound(self, project: ProjectListed, events: list[AnyEvent]) -> dict[str, str | None]:
        elements: list[dict[str, Any]] = [e for event in events if (e := inbound(event)) is not None]
        return await self._record.inbound(project, elements) if elements else {}

    def _changes(self, event: AnyEvent, conversations: dict[str, str | None]) -> tuple[AnyEvent, ...]:
        """Published for a repeated event, too: the first time may have been cut off before it."""
        match event.data:
            case MessageReceived():
                changed = MessageChanged.model_validate(
                    {
                        "message_id": event.id,
                        "conversation_id": conversations.get(str(event.id)),
                        "direction": "in",
                        "status": "received",
                        "at": self._clock(),
                    }
                )
            case MessageQueued() as data:
                changed = MessageChanged(
                    message_id=data.message_id, conversation_id=data.conversation_id, direction="out", status="queued", at=data.queued_at
                )
            case StatusReceived(message_id=known) | MessageOutcome(message_id=known) if known is not None:
                changed = MessageChanged(message_id=known, direction="out", status=event.data.status, at=event.data.at)
            case _:
                return ()
        made: AnyEvent = Event[MessageChanged].of(  # pyright: ignore[reportAssignmentType]  (an event of a payload is an event)
            changed,
            id=change_id(event.id, "message"),
            source="/conversation-log",
            time=self._clock(),
            project=event.projectid,
            lane=event.lane,
        )
        return (made,)
