"""What the simulator knows: numbers, phones, messages. In memory, bounded, gone with the process."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Json = dict[str, Any]
_KEPT: Final = 2_000  # messages of one phone with one number, attempts in all
_PHONES: Final = 5_000
TYPING: Final = 25.0
"""Seconds for which a phone shows that the business is writing, unless a message comes."""


@dataclass(slots=True)
class Number:
    """A business's number, and where its webhooks go."""

    phone_number_id: str
    waba_id: str
    display_phone_number: str
    webhook_url: str
    app_secret: str = field(repr=False)
    verify_token: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class Bubble:
    """One message on a phone."""

    id: str
    n: int
    direction: Literal["in", "out"]  # as the phone sees it: out is what the person wrote
    type: str
    text: str | None
    raw: Json
    status: str
    message_id: str | None
    at: float

    def view(self) -> Json:
        """As JSON."""
        return {
            "id": self.id,
            "n": self.n,
            "direction": self.direction,
            "type": self.type,
            "text": self.text,
            "raw": self.raw,
            "status": self.status,
            "message_id": self.message_id,
            "at": self.at,
        }


@dataclass(slots=True)
class Phone:
    """A person's phone, as it shows one business."""

    contact: str
    name: str
    bubbles: deque[Bubble] = field(default_factory=lambda: deque(maxlen=_KEPT))
    count: int = 0
    typing_until: float = 0.0

    @property
    def typing(self) -> bool:
        """Whether it shows that the business is writing."""
        return time.time() < self.typing_until

    def read(self, wamid: str, *, typing: bool) -> bool:
        """The business has read this message and what was before it, and may be writing an answer; False: the phone has sent no such message."""
        sent = [b for b in self.bubbles if b.direction == "out"]
        at = next((n for n, b in enumerate(sent) if b.id == wamid), None)
        if at is None:
            return False
        for bubble in sent[: at + 1]:
            bubble.status = "read"
        self.typing_until = time.time() + TYPING if typing else self.typing_until
        return True


@dataclass(slots=True)
class Fault:
    """A failure that a test asked for, so many times."""

    kind: str
    phone_number_id: str | None
    times: int


class World:
    """All of it."""

    def __init__(self) -> None:
        self.numbers: dict[str, Number] = {}
        self.attempts: deque[Json] = deque(maxlen=_KEPT)
        self.faults: list[Fault] = []
        self._phones: dict[tuple[str, str], Phone] = {}
        self._changed = asyncio.Condition()
        self.version = 0

    def phone(self, number: str, contact: str, name: str | None = None) -> Phone:
        """The phone of a contact, with this business."""
        phone = self._phones.get((number, contact))
        if phone is None:
            while len(self._phones) >= _PHONES:
                del self._phones[next(iter(self._phones))]
            phone = self._phones[number, contact] = Phone(contact, name or f"Contact {contact[-4:]}")
        if name:
            phone.name = name
        return phone

    def phones(self, number: str) -> list[Phone]:
        """All phones that know this number."""
        return [p for (n, _), p in self._phones.items() if n == number]

    def add(
        self,
        phone: Phone,
        direction: Literal["in", "out"],
        kind: str,
        text: str | None,
        raw: Json,
        *,
        wamid: str | None = None,
        message_id: str | None = None,
    ) -> Bubble:
        """A new message on the phone."""
        phone.count += 1
        bubble = Bubble(
            wamid or new_wamid(),
            phone.count,
            direction,
            kind,
            text,
            raw,
            "sent" if direction == "out" else "accepted",
            message_id,
            time.time(),
        )
        phone.bubbles.append(bubble)
        phone.typing_until = 0.0 if direction == "in" else phone.typing_until
        return bubble

    def fault(self, number: str, *kinds: str) -> str | None:
        """The fault that is due for a call on this number, if there is one of these kinds (or any, if none is named); it is used up."""
        for fault in self.faults:
            if fault.times > 0 and fault.phone_number_id in {None, number} and (not kinds or fault.kind in kinds):
                fault.times -= 1
                self.faults = [f for f in self.faults if f.times > 0]
                return fault.kind
        return None

    def fault_code(self, number: str) -> str | None:
        """A fault that is an error code of Meta's."""
        codes = {f.kind for f in self.faults if f.kind.isdigit()}
        return self.fault(number, *codes) if codes else None

    async def touch(self) -> None:
        """Something changed: wakes who waits."""
        async with self._changed:
            self.version += 1
            self._changed.notify_all()

    async def wait(self, version: int, limit: float) -> None:
        """Until something changed since `version`, at most `limit` seconds."""
        try:
            async with asyncio.timeout(limit), self._changed:
                await self._changed.wait_for(lambda: self.version != version)
        except TimeoutError:
            return


def new_wamid() -> str:
    """A message id in Meta's form."""
    return f"wamid.{secrets.token_urlsafe(24)}"
