"""Everything that happens to a conversation, one after the other: begin, call the bot, make its outcome true, publish."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from loquat_common import metrics
from loquat_common.bus.port import Bus, Defer, Done, Outcome, Received, Retry
from loquat_common.db import WrongDatabase
from loquat_common.directory import Directory
from loquat_common.failpoints import Failpoints
from loquat_events.conversations import ConversationChanged, MessageQueued, MessageReceived, SendOrdered
from loquat_events.elements import clean, inbound
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.ids import change_id
from loquat_events.projects import ProjectListed, TableChanged

from loquat_bot_runner.adapters.deployments import Deployed
from loquat_bot_runner.adapters.store import Store
from loquat_bot_runner.domain.outcomes import after, too_old
from loquat_bot_runner.errors import CallFailed, DoesNotStart, Superseded
from loquat_bot_runner.ports import Begun, Bots, Committed, Hold, Runs, Task

_ROUNDS: Final = 5  # a conversation that others move as often within one event comes back a little later
_NOT_YET: Final = 1.0


class Inbox:
    """The handler of `conversations.inbox.v1`."""

    def __init__(
        self,
        runs: Runs,
        bots: Bots,
        store: Store,
        directory: Directory,
        deployed: Deployed,
        bus: Bus,
        failpoints: Failpoints,
        clock: Callable[[], datetime],
    ) -> None:
        self._runs, self._bots, self._store = runs, bots, store
        self._directory, self._deployed, self._bus = directory, deployed, bus
        self._failpoints, self._clock = failpoints, clock

    async def handle(self, received: Received) -> Outcome:
        """One event."""
        project = self._directory.get(received.event.projectid)
        if (outcome := self._not_now(project, received.event)) is not None or project is None:
            return outcome or Done()
        element = inbound(received.event)
        if element is None:
            return Done()
        self._failpoints.hit("bot_runner.before_begin")
        try:
            return await self._rounds(project, received, element)
        except CallFailed as failure:
            if isinstance(failure, DoesNotStart):
                self._deployed.refuses(project.project_id)
            return after(failure, received.attempts)
        except WrongDatabase:
            return Defer(_NOT_YET, "the directory is out of date")

    def _not_now(self, project: ProjectListed | None, event: AnyEvent) -> Outcome | None:
        """What follows where there is no project, or none yet; None: it can be handled."""
        now = self._clock()
        if project is None:  # deleted: nobody is there to whom it could happen; or our table is behind
            if not self._directory.is_gone(event.projectid, event.time, now):
                return Defer(_NOT_YET, "the directory does not know the project yet")
            metrics.bus_orphans.labels("bot-runner").inc()
            return Done()
        if project.state not in {"ready", "deleting"}:
            return Defer(_NOT_YET, f"the project is {project.state}")
        if not self._deployed.known(project.project_id, event.time, now):
            return Defer(_NOT_YET, "whether the project has a bot is not known yet")
        return None

    async def _rounds(self, project: ProjectListed, received: Received, element: dict[str, Any]) -> Outcome:
        event = received.event
        hold = self._hold(project, received)
        for _ in range(_ROUNDS):
            run: dict[str, Any] = {}
            begun = await self._runs.begin(project, element, hold)
            self._failpoints.hit("bot_runner.after_begin")
            match begun.todo:
                case "done" | "held":
                    await self._publish(project, event.id, begun.outbox)
                    return Done(self._touched(event, await self._runs.touched(project, event.id) if begun.todo == "done" else {}))
                case "recorded":
                    committed = await self._runs.commit(project, event.id, None, None)
                case "blocked" if begun.blocked_by is not None:
                    first = await self._runs.commit(project, begun.blocked_by, None, None)
                    await self._publish(project, begun.blocked_by, first.outbox)
                    continue
                case _:
                    committed, run = await self._run(project, received, begun)
            self._failpoints.hit("bot_runner.after_commit")
            if committed.status != "superseded":
                await self._publish(project, event.id, committed.outbox)
                if run:
                    await self._store.record_run(project.project_id, run)
                return Done((*self._changed(event, begun), *self._touched(event, committed.touched)))
        return Retry(0.2, "the conversation moved again and again")

    def _hold(self, project: ProjectListed, received: Received) -> Hold | None:
        data = received.event.data
        if isinstance(data, SendOrdered):
            return None
        if isinstance(data, MessageReceived) and too_old(data.sent_at, self._clock(), redriven=received.redriven):
            return "expired"
        return None if self._deployed.version(project.project_id) is not None else "held"

    async def _run(self, project: ProjectListed, received: Received, begun: Begun) -> tuple[Committed, dict[str, Any]]:
        """The bot's result made true, and the row that tells of the run: written after the replies are on their way, or when it failed."""
        started, clock = self._clock(), time.perf_counter()
        run: dict[str, Any] = {
            "event_id": received.event.id,
            "attempt": received.attempts + 1,
            "state": begun.state,
            "started_at": started,
            "replies": 0,
        }
        try:
            result, run["version"] = await self._result(project, received.event, begun)
        except Superseded:
            return Committed("superseded", []), {}
        except CallFailed as failure:
            took = (time.perf_counter() - clock) * 1000
            run |= {"outcome": type(failure).__name__, "error": failure.error, "trace": failure.trace or None, "duration_ms": took}
            await self._store.record_run(project.project_id, run)
            raise
        self._failpoints.hit("bot_runner.after_handler")
        run |= {"outcome": "handled", "replies": len(result["replies"]), "next_state": result.get("state", begun.state)}
        run["duration_ms"] = (time.perf_counter() - clock) * 1000
        return await self._runs.commit(project, received.event.id, begun.version, result), run

    async def _result(self, project: ProjectListed, event: AnyEvent, begun: Begun) -> tuple[dict[str, Any], str | None]:
        """A person's order is its own result; a message's is the bot's."""
        if isinstance(event.data, SendOrdered):
            return {"replies": [event.data.message.model_dump(exclude_none=True)], "ordered_by": event.data.ordered_by}, None
        version = self._deployed.version(project.project_id)
        if version is None or not isinstance(event.data, MessageReceived):
            raise DoesNotStart("no version is deployed")
        message = event.data.message
        task = Task(
            project,
            version,
            event={
                "id": str(event.id),
                "type": clean(message.type),
                "text": clean(message.text),
                "content": clean(message.content),
                "wamid": message.wamid,
                "reply_to": message.reply_to,
            },
            contact={"id": str(begun.contact_id), "name": clean(event.data.name)},
            conversation={"id": str(begun.conversation_id), "number_id": event.data.number_id},
            state=begun.state,
            state_version=begun.version,
        )
        return await self._bots.call(task), version

    async def _publish(self, project: ProjectListed, event: UUID, outbox: list[dict[str, Any]]) -> None:
        """The messages, then their rows go. A crash in between publishes them again, with the same ids."""
        if not outbox:
            return
        await self._bus.publish(*(self._queued(project, row) for row in outbox))
        self._failpoints.hit("bot_runner.after_publish")
        await self._runs.clear(project, [event])
        self._failpoints.hit("bot_runner.after_clear")

    def _queued(self, project: ProjectListed, row: dict[str, Any]) -> AnyEvent:
        queued = MessageQueued.model_validate({**row, "cause": row["event_id"], "message": row["body"]})
        lane = queued.addresses[0].value if queued.addresses else str(queued.contact_id)
        return self._event(queued, queued.message_id, project.project_id, lane)

    def _changed(self, event: AnyEvent, begun: Begun) -> tuple[AnyEvent, ...]:
        if begun.conversation_id is None:
            return ()
        changed = ConversationChanged(conversation_id=begun.conversation_id, state=begun.state, version=begun.version + 1, at=self._clock())
        return (self._event(changed, change_id(event.id, "conversation"), event.projectid, event.lane),)

    def _touched(self, event: AnyEvent, tables: dict[str, int]) -> tuple[AnyEvent, ...]:
        """Told again when the event comes again after a crash, with the same ids: a live view looks at the table either way."""
        now = self._clock()
        return tuple(
            self._event(
                TableChanged(project_id=event.projectid, table=table, count=count, actor="bot", at=now),
                change_id(event.id, f"table {table}"),
                event.projectid,
                table,
            )
            for table, count in tables.items()
        )

    def _event(self, data: Payload, key: UUID, project: str, lane: str) -> AnyEvent:
        return Event[Payload].of(data, id=key, source="/bot-runner", time=self._clock(), project=project, lane=lane)
