"""A bot tried out: a simulated contact's message goes the way of any other, and its end is told to the caller instead of the bus.

Nothing is left out: the event is begun, the bot called, its result committed by the functions that do so for everybody. What the contact would have got
is read from the outbox and cleared there; timers are rows of which no index is told. Cut off before that, in the live database, such rows stay: an
event of the same contact is all that could publish them, and he has no address to which anything is sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from loquat_common.db import DatabaseAway, WrongDatabase
from loquat_common.failpoints import Failpoints
from loquat_events.elements import inbound
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.projects import ProjectListed

from loquat_bot_runner.adapters.runs import ProjectRuns
from loquat_bot_runner.adapters.secrets import Secrets
from loquat_bot_runner.adapters.singles import Singles
from loquat_bot_runner.adapters.worker import Worker
from loquat_bot_runner.domain.holding import silenced
from loquat_bot_runner.domain.preview import BEGUN, Act, Asked, CannotPreview, Lines, Seen, address, received
from loquat_bot_runner.domain.replies import checked
from loquat_bot_runner.errors import CallFailed, DoesNotStart, ProjectDatabaseAway, Superseded, Unsaid
from loquat_bot_runner.handlers.tasks import task_of
from loquat_bot_runner.ports import Begun, Committed, Known

_ROUNDS: Final = 5
_SETTLING: Final = 5.0  # seconds for what shall be true after a step that was cut off


class Rehearsal:
    """Plays one step of a preview on a stage: a project as it is, or as it stands in a clone."""

    def __init__(
        self, runs: ProjectRuns, singles: Singles, secrets: Secrets, failpoints: Failpoints, clock: Callable[[], datetime]
    ) -> None:
        self._runs, self._singles, self._secrets = runs, singles, secrets
        self._failpoints, self._clock = failpoints, clock

    async def of(self, stage: ProjectListed, asked: Asked, lines: Lines) -> Seen:
        """The step. What the bot does wrong is in the answer.

        Raises:
            CannotPreview: the conversation moves all the time.
            DatabaseAway, WrongDatabase, ProjectDatabaseAway: the database does not answer.
        """
        seen = Seen()
        try:
            async with self._singles.worker(stage, asked.version, lines.write) as (worker, ready):
                if (noted := asked.noted()) is not None:
                    await self._introduced(stage, asked, noted)
                event = self._event(stage, asked, asked.act)
                async with self._accounted_for(stage, event):
                    await self._played(stage, event, worker, seen, observes=ready.observes)
        except DoesNotStart as failure:
            _failed(seen, failure)
        return seen

    async def _introduced(self, stage: ProjectListed, asked: Asked, noted: Mapping[str, Any]) -> None:
        """Who he is, noted with a message of the platform's, which is the first that people see of him."""
        event = self._event(stage, asked, Act("system", BEGUN))
        async with self._accounted_for(stage, event):
            for _ in range(_ROUNDS):
                begun = await self._runs.begin(stage, _element(event), None, observes=True)
                if begun.todo == "blocked" and begun.blocked_by is not None:
                    await self._runs.commit(stage, begun.blocked_by, None, None)
                    continue
                committed = await self._runs.commit(stage, event.id, begun.version, {"replies": [], "contact": dict(noted)})
                if committed.status != "superseded":
                    return
        raise CannotPreview("preview_busy", "the conversation moved again and again")

    async def _played(self, stage: ProjectListed, event: AnyEvent, worker: Worker, seen: Seen, *, observes: bool) -> None:
        for _ in range(_ROUNDS):
            begun = await self._runs.begin(stage, _element(event), None, observes=observes)
            seen.contact_id, seen.conversation_id, seen.state_before = begun.contact_id, begun.conversation_id, begun.state
            self._failpoints.hit("bot_runner.preview.begun")
            match begun.todo:
                case "blocked" if begun.blocked_by is not None:  # a step before was cut off behind the bot's own commit
                    first = await self._runs.commit(stage, begun.blocked_by, None, None)
                    await self._heard(stage, seen, first.outbox)
                    continue
                case "recorded":  # the bot died behind its own commit
                    await self._finished(stage, begun, await self._runs.commit(stage, event.id, None, None), {}, seen)
                    return
                case "run" | "observe":
                    if await self._called(stage, event, begun, worker, seen):
                        return
                case _:
                    seen.outcome, seen.state = "held", begun.state
                    return
        raise CannotPreview("preview_busy", "the conversation moved again and again")

    async def _called(self, stage: ProjectListed, event: AnyEvent, begun: Begun, worker: Worker, seen: Seen) -> bool:
        """False: another run was first."""
        try:
            result = await self._result(stage, event, begun, worker, seen)
            self._failpoints.hit("bot_runner.preview.handled")
            committed = await self._runs.commit(stage, event.id, begun.version, result)
        except Superseded:
            return False
        except ProjectDatabaseAway:
            raise
        except CallFailed as failure:
            return await self._consequences(stage, event, failure, seen)
        if committed.status == "superseded":
            return False
        self._failpoints.hit("bot_runner.preview.committed")
        await self._finished(stage, begun, committed, result, seen)
        return True

    async def _finished(self, stage: ProjectListed, begun: Begun, committed: Committed, result: Mapping[str, Any], seen: Seen) -> None:
        seen.ended, seen.noted, seen.touched = result.get("end", False), result.get("contact"), committed.touched
        seen.held_by(committed.holder)
        await self._heard(stage, seen, committed.outbox)
        await self._timed(stage, begun, committed.timed, seen)

    async def _result(self, stage: ProjectListed, event: AnyEvent, begun: Begun, worker: Worker, seen: Seen) -> dict[str, Any]:
        known = begun.context or Known()
        task = task_of(stage, "", event, begun, known, await self._secrets.now(stage.project_id))
        voice = _Voice(self._runs, stage, event.id, begun.version, seen) if begun.todo == "run" else None
        clock = time.perf_counter()
        try:
            handled = await worker.run(replace(task, following=None), voice)
        finally:
            seen.duration_ms = (time.perf_counter() - clock) * 1000
        seen.queries = max(handled.queries, 0)
        result = checked(handled.result, worker.limits.messages, voice.said if voice is not None else 0)
        return silenced(result) if task.observing else result

    async def _consequences(self, stage: ProjectListed, event: AnyEvent, failure: CallFailed, seen: Seen) -> bool:
        """As after the last try of an event: an apology, a hold. Nobody tries it again. False: the bot has committed after all, or another was first."""
        failed = await self._runs.fail(stage, event.id, None, type(failure).__name__)
        if failed is not None:
            if failed.status == "superseded":
                return False
            await self._heard(stage, seen, failed.outbox)
            seen.held_by(failed.holder)
        _failed(seen, failure)
        await self._runs.begin(stage, _element(event), "discarded")
        return True

    async def _heard(self, stage: ProjectListed, seen: Seen, outbox: list[dict[str, Any]]) -> None:
        seen.replies += [row["body"] for row in outbox]
        if outbox:
            await self._runs.clear(stage, sorted({UUID(row["event_id"]) for row in outbox}))

    async def _timed(self, stage: ProjectListed, begun: Begun, timed: Mapping[str, Any], seen: Seen) -> None:
        """Timers of this conversation alone: what a crash has left of others' is their next event's affair."""
        unarmed: list[dict[str, Any]] = timed.get("arm") or []
        own = [t for t in unarmed if t["conversation_id"] == str(begun.conversation_id)]
        seen.timers = [{"name": t["name"], "due_at": t["due_at"]} for t in own]
        if own:
            await self._runs.armed(stage, [{k: t[k] for k in ("timer_id", "version", "due_at")} for t in own])

    @asynccontextmanager
    async def _accounted_for(self, stage: ProjectListed, event: AnyEvent) -> AsyncGenerator[None]:
        """An event whose step is cut off comes again to nobody: it has an outcome then, too."""
        try:
            yield
        except BaseException:
            with suppress(DatabaseAway, WrongDatabase, TimeoutError):
                async with asyncio.timeout(_SETTLING):
                    await asyncio.shield(self._runs.begin(stage, _element(event), "discarded"))
            raise

    def _event(self, stage: ProjectListed, asked: Asked, act: Act) -> AnyEvent:
        key, now = uuid4(), self._clock()
        data = received(asked, act, key, now)
        return Event[Payload].of(data, id=key, source="/bot-runner", time=now, project=stage.project_id, lane=address(asked.key).value)


class _Voice:
    """See `ports.Voice`: what is said before the end is true in the database, and told to the caller."""

    def __init__(self, runs: ProjectRuns, stage: ProjectListed, event: UUID, version: int, seen: Seen) -> None:
        self._runs, self._stage, self._event, self._version, self._seen = runs, stage, event, version, seen
        self.said = 0

    async def say(self, answered: UUID, place: int, reply: dict[str, Any]) -> None:
        """See `ports.Voice`."""
        spoken = await self._runs.say(self._stage, self._event, self._version, answered, place, reply)
        if spoken.status == "superseded":
            raise Superseded("another run was first")
        if spoken.status == "held":
            raise Unsaid("somebody holds the conversation")
        self._seen.replies += [row["body"] for row in spoken.outbox]
        self.said += 1
        await self._runs.clear_said(self._stage, [UUID(row["message_id"]) for row in spoken.outbox])

    async def typing(self) -> None:
        """Nobody sees it."""


def _element(event: AnyEvent) -> dict[str, Any]:
    element = inbound(event)
    if element is None:
        raise TypeError(f"{event.type} is none of the inbox")
    return element


def _failed(seen: Seen, failure: CallFailed) -> None:
    seen.outcome, seen.error, seen.trace = type(failure).__name__, failure.error, failure.trace or None
