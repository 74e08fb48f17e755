"""What follows a run besides its replies: timers are armed in the due index, what a schedule says to contacts is ordered in their lanes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

from loquat_common.bus.port import Bus
from loquat_common.failpoints import Failpoints
from loquat_events.conversations import SendOrdered
from loquat_events.elements import clean
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.projects import ProjectListed

from loquat_bot_runner.adapters.due import DueIndex
from loquat_bot_runner.adapters.lapses import Lapse

_SHOWN: Final = 5  # contacts that a line of the log names
Log = Callable[[str, UUID | None, str, list[str]], Awaitable[None]]


class TimedRows(Protocol):
    """The project's own rows of what was timed."""

    async def armed(self, project: ProjectListed, timers: list[dict[str, Any]]) -> None:
        """The index knows these, as they were given."""
        ...

    async def clear_sends(self, project: ProjectListed, event: UUID) -> None:
        """What the event says to contacts is ordered."""
        ...


class Timed:
    """Index and bus first, then the project's rows: a crash in between does the first again, with the same ids."""

    def __init__(
        self,
        index: DueIndex,
        rows: TimedRows,
        bus: Bus,
        failpoints: Failpoints,
        clock: Callable[[], datetime],
        log: Log,
        nearer: Callable[[datetime], None] = lambda _: None,
    ) -> None:
        """`log` takes lines for a project's own log; `nearer` is told of each time that was armed."""
        self._log = log
        self._index, self._rows, self._bus, self._failpoints, self._clock = index, rows, bus, failpoints, clock
        self._nearer = nearer

    async def follow(self, project: ProjectListed, event: UUID, timed: Mapping[str, Any]) -> None:
        """Before the event is finished."""
        if timers := timed.get("arm"):
            await self._arm(project, timers)
        if sends := timed.get("send"):
            await self._send(project, event, sends)

    async def hold(self, project: ProjectListed, lane: str, holder: Mapping[str, Any] | None) -> None:
        """Who holds the conversation now, before the event is finished: where that ends by itself, it is to be told."""
        if holder is None or holder.get("held_until") is None:
            return
        until = datetime.fromisoformat(holder["held_until"])
        await self._index.lapses.note(Lapse(project.project_id, UUID(holder["conversation_id"]), project.epoch, until, lane))

    async def _arm(self, project: ProjectListed, timers: list[dict[str, Any]]) -> None:
        self._failpoints.hit("bot_runner.before_arm")
        await self._index.arm(project.project_id, project.epoch, [{**t, "lane": _lane(t)} for t in timers])
        for timer in timers:
            if timer["due_at"] is not None:
                self._nearer(datetime.fromisoformat(timer["due_at"]))
        self._failpoints.hit("bot_runner.after_arm")
        await self._rows.armed(project, [{k: t[k] for k in ("timer_id", "version", "due_at")} for t in timers])
        self._failpoints.hit("bot_runner.after_armed")

    async def _send(self, project: ProjectListed, event: UUID, sends: list[dict[str, Any]]) -> None:
        known = [s for s in sends if s["number_id"] is not None and s["addresses"]]
        if len(known) < len(sends):
            lost = [str(s["contact_id"]) for s in sends if s not in known]
            shown = f"{', '.join(lost[:_SHOWN])}{', ...' if len(lost) > _SHOWN else ''}"
            line = f"{len(lost)} messages of the schedule were not sent: nobody with this id has ever written ({shown})"
            await self._log(project.project_id, event, "warning", [line])
        await self._bus.publish(*(self._order(project, event, s) for s in known))
        self._failpoints.hit("bot_runner.after_orders")
        await self._rows.clear_sends(project, event)

    def _order(self, project: ProjectListed, event: UUID, send: Mapping[str, Any]) -> AnyEvent:
        message = {k: v for k, v in send["message"].items() if v is not None}
        ordered = SendOrdered.model_validate(
            {
                "number_id": send["number_id"],
                "addresses": send["addresses"],
                "message": clean(message),
                "ordered_by": f"schedule {event}",
                "sender": "automation",
            }
        )
        return Event[Payload].of(
            ordered, id=UUID(send["order_id"]), source="/bot-runner", time=self._clock(), project=project.project_id, lane=_lane(send)
        )


def _lane(row: Mapping[str, Any]) -> str:
    """The contact's, as messages to him have it."""
    return row["addresses"][0]["value"] if row["addresses"] else str(row["contact_id"])
