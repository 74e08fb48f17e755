"""Who holds a tester's conversation, and the question that waits in it: as the platform keeps both."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from loquat.messages import Json


@dataclass(slots=True)
class Held:
    """`holder` is `bot`, `people` after a handoff, or `person` who has taken over; `until` is when it is the bot's again by itself."""

    holder: Literal["bot", "people", "person"] = "bot"
    note: str | None = None
    until: datetime | None = None
    ask: Json | None = None
    ask_until: datetime | None = None

    def look(self, now: datetime) -> Held:
        """With what is over by now left out."""
        if self.until is not None and self.until <= now:
            self.release()
        if self.ask_until is not None and self.ask_until <= now:
            self.ask = self.ask_until = None
        return self

    def release(self) -> None:
        """The bot's again."""
        self.holder, self.note, self.until = "bot", None, None

    def take(self, holder: Literal["people", "person"], now: datetime, seconds: float | None = None, note: str | None = None) -> None:
        """Theirs from now on. A question that waits is not asked again."""
        self.holder, self.note, self.until = holder, note, _after(now, seconds)
        self.ask = self.ask_until = None

    def apply(self, result: Json, now: datetime, *, of_message: bool) -> None:
        """What a call's result says of both."""
        if (hold := result.get("hold")) is not None:
            self.take("people", now, hold["seconds"], hold["note"])
        elif (ask := result.get("ask")) is not None:
            self.ask, self.ask_until = (None, None) if "over" in ask else (ask, _after(now, ask["seconds"]))
        elif of_message:
            self.ask = self.ask_until = None


def _after(now: datetime, seconds: float | None) -> datetime | None:
    return now + timedelta(seconds=seconds) if seconds is not None else None
