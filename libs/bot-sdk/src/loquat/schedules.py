"""`@bot.schedule`: what is to happen at set times, whoever writes or does not; and the context of such a call."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from loquat import replies
from loquat.context import Log, Means
from loquat.database import Database
from loquat.tools import Tools

CatchUp = Literal["skip", "once", "all"]
MOST_SCHEDULES: Final = 50
MOST_SENDS: Final = 500
"""Messages of one call."""
LONGEST_SCHEDULE: Final = 100
LONGEST_NAME: Final = 60
_FIELDS: Final = 5
_LARGEST: Final = 240 << 10
"""Bytes of the messages of one call as JSON."""

ScheduleHandler = Callable[["ScheduleContext"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a handler is called. `catch_up` says what follows times that were missed: nothing, one call, or one for each (the last 24)."""

    name: str
    expression: str
    tz: str
    catch_up: CatchUp
    handler: ScheduleHandler

    def __str__(self) -> str:
        return f'schedule "{self.expression}" {self.tz}'


@dataclass(frozen=True, slots=True)
class Due:
    """Why a schedule's handler is called. `id` is the same however often the call is repeated; `due_at` the time that it is for (UTC)."""

    id: UUID
    name: str
    due_at: datetime
    manual: bool = False


class ScheduleContext:
    """A call of a schedule's handler: nobody wrote, there is no conversation. Messages are sent when it ends well; if it fails, none is."""

    def __init__(self, event: Due, database: Database, log: Log, now: datetime, means: Means) -> None:
        self.event, self.db, self.log, self.now = event, database, log, now
        self.memory, self.pool, self.http = means.memory, means.pool, means.http
        self.config, self.secrets, self._tools = means.config, means.secrets, means.tools
        self._sends: list[tuple[UUID, replies.Reply]] = []
        self._bytes = 0

    @property
    def tools(self) -> Tools:
        """The bot's tools, to be listed and called."""
        return Tools(self._tools, self)

    @property
    def sends(self) -> tuple[tuple[UUID, replies.Reply], ...]:
        """What was said to whom in this call so far."""
        return tuple(self._sends)

    async def send(self, contact_id: UUID, reply: str | replies.Reply) -> None:
        """Says something to a contact who has written before, in turn with what else happens to him; at most 500 messages a call.

        Raises:
            ReplyRefused: WhatsApp would refuse it, or it is too much for one call.
        """
        said = replies.text(reply) if isinstance(reply, str) else reply
        if not isinstance(contact_id, UUID):  # pyright: ignore[reportUnnecessaryIsInstance]  (bots are often not typed)
            raise replies.ReplyRefused(f"ctx.send takes a contact's id, a UUID, not {contact_id!r}"[:200])
        size = len(json.dumps(said.wire())) + 60
        if len(self._sends) >= MOST_SENDS or self._bytes + size > _LARGEST:
            raise replies.ReplyRefused(f"one call sends at most {MOST_SENDS} messages, of {_LARGEST} bytes together")
        self._bytes += size
        self._sends.append((contact_id, said))

    def result(self) -> dict[str, Any]:
        """What the platform makes true."""
        sends = [{"contact_id": str(contact), **reply.wire()} for contact, reply in self._sends]
        return {"replies": [], **({"sends": sends} if sends else {})}


def due(event: dict[str, Any]) -> Due:
    """Of a call's `event`."""
    told = event["schedule"]
    return Due(UUID(event["id"]), told["name"], datetime.fromisoformat(told["due_at"]), bool(told.get("manual")))


def schedule(name: str, expression: str, tz: str, catch_up: CatchUp, handler: ScheduleHandler) -> Schedule:
    """A declaration, checked.

    Raises:
        ValueError: it is none. The text says what would be.
    """
    if not isinstance(expression, str) or len(expression) > LONGEST_SCHEDULE or len(expression.split()) != _FIELDS:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(
            f"a schedule has five fields (minute, hour, day of the month, month, day of the week), such as '0 9 * * 1-5', not {expression!r}"
        )
    if catch_up not in get_args(CatchUp):
        raise ValueError(f"catch_up is one of {', '.join(get_args(CatchUp))}, not {catch_up!r}")
    if not 1 <= len(name) <= LONGEST_NAME:
        raise ValueError(f"a schedule's name has 1 to {LONGEST_NAME} characters; this is {name!r}")
    try:
        zone = ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise ValueError(f"{tz!r} is no time zone; one is called 'Europe/Berlin'") from None
    try:
        next(CronSim(expression, datetime.now(UTC).astimezone(zone)))
    except (CronSimError, StopIteration) as error:
        raise ValueError(f"{expression!r} is no schedule: {str(error) or 'it never comes'}") from None
    return Schedule(name, expression, tz, catch_up, handler)
