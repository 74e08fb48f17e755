"""Everything that happens to a conversation, one after the other: begin, call the bot, make its outcome true, publish."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from loquat_common import metrics
from loquat_common.bus.port import Bus, Dead, Defer, Done, Outcome, Received, Retry
from loquat_common.db import WrongDatabase
from loquat_common.directory import Directory
from loquat_common.failpoints import Failpoints
from loquat_events.conversations import (
    ConversationChanged,
    HoldOrdered,
    MessageReceived,
    PersonUpdateReceived,
    ScheduleFired,
    SendOrdered,
    TimerFired,
)
from loquat_events.elements import inbound
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.ids import change_id
from loquat_events.projects import ProjectListed, TableChanged

from loquat_bot_runner.adapters.deployments import Deployed
from loquat_bot_runner.adapters.secrets import Secrets
from loquat_bot_runner.adapters.store import Store
from loquat_bot_runner.domain.holding import holding, sending, silenced
from loquat_bot_runner.domain.outcomes import after
from loquat_bot_runner.domain.pointer import DRAFT, Choice, choose, needs_opening
from loquat_bot_runner.errors import BotError, CallFailed, DoesNotStart, ProjectDatabaseAway, SlowStart, Superseded
from loquat_bot_runner.handlers.tasks import task_of
from loquat_bot_runner.handlers.timed import Timed
from loquat_bot_runner.handlers.voice import Voices, queued
from loquat_bot_runner.ports import Begun, Bots, Committed, Hold, Known, Runs

_ROUNDS: Final = 5  # a conversation that others move as often within one event comes back a little later
_NOT_YET: Final = 1.0
_SOON: Final = 0.2
_HANDBACK: Final = "loquat:handback"  # the timer by which a conversation's database says that it is the bot's again


class Claims(set[tuple[UUID | None, int]]):
    """Where a bot said that another run was first. One that was has moved the conversation: whoever begins there again has been told what is not so."""


class MoreMayCome(Exception):
    """A bot that gathers what its contact writes is called again in so many seconds; the lane waits as rows, and nobody in it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


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
        secrets: Secrets,
        timed: Timed,
    ) -> None:
        self._timed = timed
        self._runs, self._bots, self._store, self._secrets = runs, bots, store, secrets
        self._directory, self._deployed, self._bus = directory, deployed, bus
        self._failpoints, self._clock = failpoints, clock
        self._voices = Voices(runs, bus, failpoints, clock)

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
            if isinstance(failure, DoesNotStart) and not isinstance(failure, SlowStart):
                self._deployed.refuses(project.project_id)
            outcome = after(failure, received.attempts)
            return await self._given_up(project, received.event, failure, outcome) if isinstance(outcome, Dead) else outcome
        except MoreMayCome as burst:
            return Defer(burst.seconds, "more may come of what the contact writes")
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
        hold, claims = self._hold(project, received), Claims()
        for _ in range(_ROUNDS):
            run: dict[str, Any] = {}
            begun = await self._runs.begin(
                project,
                element,
                hold,
                age=self._age(received),
                redriven=received.redriven,
                observes=self._bots.observes(project.project_id),
                gathers=self._bots.gathers(project.project_id),
            )
            self._failpoints.hit("bot_runner.after_begin")
            await self._voices.publish(project, event.id, begun.unsaid)
            match begun.todo:
                case "done" | "held":
                    await self._publish(project, event.id, begun.outbox)
                    await self._timed.follow(project, event.id, begun.timed or {})
                    await self._timed.hold(project, event.lane, begun.holder)
                    told = self._changed(event, begun, begun.holder) if isinstance(event.data, PersonUpdateReceived) else ()
                    return Done((*told, *self._touched(event, await self._runs.touched(project, event.id) if begun.todo == "done" else {})))
                case "dead":  # cut off when what follows was true and the event not yet put aside
                    await self._publish(project, event.id, begun.outbox)
                    await self._bus.publish(*self._flagged(event, begun.holder))
                    return Dead("the bot failed")
                case "observe":
                    if (seen := await self._observed(project, received, begun, claims)) is None:
                        hold = "held"
                        continue
                    committed, run = seen
                case "recorded":
                    committed = await self._runs.commit(project, event.id, None, None)
                    run = self._row(received, begun) | {"outcome": "handled", "replies": len(committed.outbox), "duration_ms": 0.0}
                case "blocked" if begun.blocked_by is not None:
                    first = await self._runs.commit(project, begun.blocked_by, None, None)
                    await self._publish(project, begun.blocked_by, first.outbox)
                    await self._timed.follow(project, begun.blocked_by, first.timed)
                    await self._timed.hold(project, event.lane, first.holder)
                    continue
                case _:
                    committed, run = await self._run(project, received, begun, claims)
            self._failpoints.hit("bot_runner.after_commit")
            if committed.status != "superseded":
                await self._publish(project, event.id, committed.outbox)
                await self._timed.follow(project, event.id, committed.timed)
                await self._timed.hold(project, event.lane, committed.holder)
                if run:
                    await self._store.record_run(project.project_id, run)
                return Done((*self._changed(event, begun, committed.holder), *self._touched(event, committed.touched)))
        return Retry(0.2, "the conversation moved again and again")

    def _hold(self, project: ProjectListed, received: Received) -> Hold | None:
        data = received.event.data
        if isinstance(data, SendOrdered | HoldOrdered) or (isinstance(data, PersonUpdateReceived) and data.message is not None):
            return None
        if isinstance(data, TimerFired | ScheduleFired) and data.epoch != project.epoch:
            return "discarded"
        if isinstance(data, TimerFired) and data.name == _HANDBACK and not self._bots.takes_back(project.project_id):
            return "discarded"
        return None if self._deployed.version(project.project_id) is not None else "held"

    def _age(self, received: Received) -> timedelta | None:
        """A person who redrives an event waits for the answer, however old it is."""
        since = _since(received.event)
        return self._clock() - since if since is not None and not received.redriven else None

    async def _observed(
        self, project: ProjectListed, received: Received, begun: Begun, claims: Claims
    ) -> tuple[Committed, dict[str, Any]] | None:
        """What a person holds, seen by the bot; None: it failed, and nobody waits for it to do better."""
        try:
            return await self._run(project, received, begun, claims)
        except ProjectDatabaseAway:
            raise
        except CallFailed:
            return None

    async def _given_up(self, project: ProjectListed, event: AnyEvent, failure: CallFailed, dead: Dead) -> Outcome:
        """What the project wants to follow is true before the event is put aside; a crash in between finds it so and does not call the bot again."""
        if isinstance(event.data, ScheduleFired):
            return dead  # in nobody's conversation
        self._failpoints.hit("bot_runner.before_fail")
        failed = await self._runs.fail(
            project, event.id, failure.run, type(failure).__name__
        )  # its words may hold secrets: they are in the run
        self._failpoints.hit("bot_runner.after_fail")
        if failed is None:
            return dead
        await self._voices.publish(project, event.id, failed.unsaid)
        if failed.status == "superseded":
            return Defer(_SOON, "the conversation has moved, or the bot has committed after all")
        await self._publish(project, event.id, failed.outbox)
        if failed.status == "done":
            return Done()
        await self._bus.publish(*self._flagged(event, failed.holder))
        return dead

    def _row(self, received: Received, begun: Begun) -> dict[str, Any]:
        """What is known of a run before it; all that is known of one whose runner died when the bot had committed its result."""
        return {
            "event_id": received.event.id,
            "attempt": received.attempts + 1,
            "state": begun.state,
            "conversation_id": begun.conversation_id,
            "started_at": self._clock(),
            "replies": 0,
        }

    async def _run(self, project: ProjectListed, received: Received, begun: Begun, claims: Claims) -> tuple[Committed, dict[str, Any]]:
        """The bot's result made true, and the row that tells of the run: written after the replies are on their way, or when it failed."""
        run, clock, choice = self._row(received, begun), time.perf_counter(), None
        try:
            if (begun.conversation_id, begun.version) in claims:
                raise BotError("the bot says that another run was first, and its database knows of none")
            choice = await self._choice(project, received.event, begun)
            run["version"] = choice.version if choice is not None else None
            result = await self._result(project, received.event, begun, run["version"])
        except Superseded:
            claims.add((begun.conversation_id, begun.version))
            return Committed("superseded", []), {}
        except CallFailed as failure:
            took = (time.perf_counter() - clock) * 1000
            run |= {"outcome": type(failure).__name__, "error": failure.error, "trace": failure.trace or None, "duration_ms": took}
            failure.run = await self._store.record_run(project.project_id, run)
            if choice is not None and choice.why != "stable" and (instead := self._of_few(project, choice, failure)) is not None:
                raise instead from failure
            raise
        if "later" in result:
            raise MoreMayCome(result["later"])
        self._failpoints.hit("bot_runner.after_handler")
        run["queries"] = result.pop("queries", None)
        said = result.pop("said", 0) + len(result["replies"]) + len(result.get("sends", ()))
        run |= {"outcome": "handled", "replies": said, "next_state": result.get("state", begun.state)}
        run["duration_ms"] = (time.perf_counter() - clock) * 1000
        return await self._runs.commit(project, received.event.id, begun.version, result), run

    async def _choice(self, project: ProjectListed, event: AnyEvent, begun: Begun) -> Choice | None:
        """The version that answers this contact; None: no bot's affair."""
        pointer = self._deployed.pointer(project.project_id)
        if pointer is not None and isinstance(event.data, ScheduleFired):
            return Choice(pointer.version, "stable")
        if (
            pointer is None
            or begun.contact_id is None
            or begun.conversation_id is None
            or isinstance(event.data, SendOrdered | HoldOrdered)
        ):
            return None
        opened_at = None
        if needs_opening(pointer, begun.contact_id):
            opened_at = await self._runs.opened_at(project, begun.conversation_id)
        choice = choose(pointer, begun.contact_id, opened_at)
        return Choice(await self._store.draft(project.project_id), choice.why) if choice.version == DRAFT else choice

    def _of_few(self, project: ProjectListed, choice: Choice, failure: CallFailed) -> BotError | None:
        """What failed for a canary's contacts or a test contact blocks nobody else: that it does not start is an error of this call."""
        broken = isinstance(failure, DoesNotStart)
        if choice.why == "canary" and not isinstance(failure, ProjectDatabaseAway):
            self._deployed.suspects.note(project.project_id, choice.version, f"it does not start: {failure.error}" if broken else None)
        if not broken:
            return None
        instead = BotError(failure.error, failure.trace)
        instead.run = failure.run
        return instead

    async def _result(self, project: ProjectListed, event: AnyEvent, begun: Begun, version: str | None) -> dict[str, Any]:
        """An order is its own result; all else is the bot's affair."""
        if isinstance(event.data, SendOrdered):
            return sending(event.data, begun.conduct)
        if isinstance(event.data, HoldOrdered):
            return holding(event.data, begun.conversation_id)
        if version is None:
            raise DoesNotStart("no version is deployed")
        known = begun.context or Known()
        task = task_of(project, version, event, begun, known, await self._secrets.of(project.project_id, project.epoch, known.secrets))
        voice = self._voices.of(project, event, begun)
        result = await self._bots.call(task, voice)
        return silenced(result) if task.observing else {**result, "said": voice.said if voice is not None else 0}

    async def _publish(self, project: ProjectListed, event: UUID, outbox: list[dict[str, Any]]) -> None:
        """The messages, then their rows go. A crash in between publishes them again, with the same ids."""
        if not outbox:
            return
        await self._bus.publish(*(queued(project, event, row, self._clock()) for row in outbox))
        self._failpoints.hit("bot_runner.after_publish")
        await self._runs.clear(project, sorted({UUID(row["event_id"]) for row in outbox}))
        self._failpoints.hit("bot_runner.after_clear")

    def _changed(self, event: AnyEvent, begun: Begun, holder: dict[str, Any] | None) -> tuple[AnyEvent, ...]:
        if begun.conversation_id is None:
            return ()
        known = {"conversation_id": begun.conversation_id, "state": begun.state, "version": begun.version + 1, "at": self._clock()}
        changed = ConversationChanged.model_validate({**known, **(holder or {})})
        return (self._event(changed, change_id(event.id, "conversation"), event.projectid, event.lane),)

    def _flagged(self, event: AnyEvent, holder: dict[str, Any] | None) -> tuple[AnyEvent, ...]:
        if holder is None:
            return ()
        changed = ConversationChanged.model_validate({**holder, "at": self._clock()})
        return (self._event(changed, change_id(event.id, "failure"), event.projectid, event.lane),)

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


def _since(event: AnyEvent) -> datetime | None:
    """Since when somebody waits for what comes of it. A schedule catches up by its own rules, so the day begins when it is fired."""
    match event.data:
        case MessageReceived() as data:
            return data.sent_at
        case TimerFired() as data:
            return data.due_at
        case ScheduleFired():
            return event.time
        case _:
            return None
