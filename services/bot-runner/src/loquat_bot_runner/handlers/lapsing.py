"""Tells when a hold is over by itself. It is already: who holds a conversation is compared with the clock wherever it is asked, and this is for live views."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

from loquat_common.bus.port import Bus, BusUnavailable
from loquat_common.db import DatabaseAway, WrongDatabase, is_gone
from loquat_common.directory import Directory
from loquat_common.failpoints import Failpoints
from loquat_common.logs import get_logger
from loquat_events.conversations import ConversationChanged
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.ids import change_id
from loquat_events.projects import ProjectListed

from loquat_bot_runner.adapters.lapses import MOST, Lapse, Lapses

_EVERY: Final = 2.0
"""Seconds between two looks: so late a live view hears of it."""
_NOT_YET: Final = timedelta(seconds=10)
"""Until a project that is away or not ready is looked at again."""


class Held(Protocol):
    """The project's own word."""

    async def held(self, project: ProjectListed, conversations: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
        """Open ones by id: `state`, `version`, `needs_attention`; `held_until` where it was not the bot that held it last, and whether that is `over`."""
        ...


@dataclass(frozen=True, slots=True)
class _Looked:
    """What is to be told of some holds, and those that are to be looked at later."""

    told: Sequence[AnyEvent]
    later: Sequence[Lapse]


class Lapsing:
    """Any number of replicas. Cut off after it has told, another tells again, with the same ids."""

    def __init__(
        self, lapses: Lapses, held: Held, directory: Directory, bus: Bus, failpoints: Failpoints, clock: Callable[[], datetime]
    ) -> None:
        self._lapses, self._held, self._directory = lapses, held, directory
        self._bus, self._failpoints, self._clock = bus, failpoints, clock

    async def run(self) -> None:
        """For ever."""
        while True:
            taken = 0
            try:
                taken = await self.once()
            except Exception as error:
                if not isinstance(error, BusUnavailable) and not is_gone(error):
                    raise
                get_logger().warning("holds.not_told", error=type(error).__name__)
            if taken < MOST:
                await asyncio.sleep(_EVERY)

    async def once(self) -> int:
        """Tells of one batch; how many rows."""
        by_project = defaultdict[str, list[Lapse]](list)
        for lapse in await self._lapses.take(self._clock()):
            by_project[lapse.project_id].append(lapse)
        looked = await asyncio.gather(*(self._look(project, lapses) for project, lapses in by_project.items()))
        if told := [event for one in looked for event in one.told]:
            await self._bus.publish(*told)
        self._failpoints.hit("bot_runner.after_lapse")
        later = [x for one in looked for x in one.later]
        await self._lapses.put_back(later, self._clock() + _NOT_YET)
        await self._lapses.settle([x for lapses in by_project.values() for x in lapses if x not in later])
        return sum(map(len, by_project.values()))

    async def _look(self, project_id: str, lapses: Sequence[Lapse]) -> _Looked:
        """One that is away keeps no other waiting."""
        project = self._directory.get(project_id)
        if project is None or project.state != "ready":
            return _Looked((), lapses)
        try:
            there = await self._held.held(project, [x.conversation_id for x in lapses])
        except (DatabaseAway, WrongDatabase):
            return _Looked((), lapses)
        same = [x for x in lapses if x.epoch == project.epoch and there.get(x.conversation_id, {}).get("held_until") == x.held_until]
        over = [x for x in same if there[x.conversation_id]["over"]]  # by the clock that counts
        return _Looked([self._event(x, there[x.conversation_id]) for x in over], [x for x in same if x not in over])

    def _event(self, lapse: Lapse, row: dict[str, Any]) -> AnyEvent:
        known = {"state": row["state"], "version": row["version"], "needs_attention": row["needs_attention"]}
        changed = ConversationChanged(conversation_id=lapse.conversation_id, at=self._clock(), holder="bot", **known)
        key = change_id(lapse.conversation_id, f"held until {lapse.held_until.isoformat()}")
        return Event[Payload].of(changed, id=key, source="/bot-runner", time=self._clock(), project=lapse.project_id, lane=lapse.lane)
