"""Tests of a bot in plain pytest: `BotTester` plays the platform and one contact, in memory.

```python
from loquat.testing import BotTester

from bot import bot


async def test_the_bot_greets():
    tester = BotTester(bot)
    await tester.send("hi")
    assert tester.last.text == "Hello!"
```
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from uuid import uuid4

import asyncpg

from loquat import protocol
from loquat.bot import INITIAL, Bot
from loquat.context import Contact, Context, Conversation, Log
from loquat.database import Database
from loquat.loading import load, own_trace
from loquat.messages import Json, read
from loquat.play import Played, play
from loquat.replies import Reply
from loquat.scratch import NoScratchDatabase, Scratch, ScratchDatabase

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["BotTester", "Line", "NoScratchDatabase", "NotOffered", "pytest_pyfunc_call"]

_START: Final = datetime(2026, 1, 5, 9, tzinfo=UTC)  # a Monday morning
_NUMBER: Final = "100000000000001"


class NotOffered(AssertionError):
    """The test chose what the bot has not offered: nobody could."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the bot's log."""

    level: str
    text: str


class BotTester:
    """One contact who writes to a bot, and the platform between them.

    State, version and conversation move as the platform moves them: by what a handler that ended well gave back, and not at all after one
    that failed, whose exception the test gets. Times are those of `now`, which stands still until `advance`.

    `database` is the address of a throw-away PostgreSQL for `ctx.db`; the tester works in a schema of its own there, which it removes at the end of a
    `with`. System tables (`contacts`, `messages`, ...) are not there.
    """

    def __init__(self, bot: Bot, *, database: str | None = None, name: str | None = "Ada", state: str = INITIAL) -> None:
        self.bot = bot
        self.contact = Contact(uuid4(), name)
        self.state = state
        self.version = 0
        self.now = _START
        self.log: list[Line] = []
        self.replies: tuple[Reply, ...] = ()
        """What was said to the last message."""
        self.said: list[Reply] = []
        """Everything that was said so far."""
        self.closed = False
        """Whether the conversation is closed: the next message opens another."""
        self.conversation = Conversation(uuid4(), _NUMBER)
        self._scratch = Scratch(database)
        self._messages = 0
        self._home = Path("/")

    @classmethod
    def load(cls, folder: Path | str, *, database: str | None = None, name: str | None = "Ada", state: str = INITIAL) -> Self:
        """With the bot of a folder, loaded anew as a worker loads it."""
        home = Path(folder).resolve()
        _forget(home)
        sys.path[:] = [p for p in sys.path if p != str(home)]
        made = cls(load(home), database=database, name=name, state=state)
        made._home = home
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._scratch.drop()

    @property
    def last(self) -> Reply:
        """The last thing that was said.

        Raises:
            AssertionError: the bot has said nothing yet.
        """
        if not self.said:
            raise AssertionError("the bot has said nothing")
        return self.said[-1]

    def advance(self, **by: float) -> None:
        """Lets time go by: `advance(hours=2)`, as `timedelta` takes it."""
        self.now += timedelta(**by)

    async def send(self, text: str) -> tuple[Reply, ...]:
        """Writes a text; the replies."""
        return await self.send_raw("text", {"body": text}, text=text)

    async def tap(self, button_id: str) -> tuple[Reply, ...]:
        """Taps a button that the bot has shown at some time.

        Raises:
            NotOffered: it has not.
        """
        offered = {b.id: b.title for reply in self.said for b in reply.buttons}
        chosen = {"id": button_id, "title": _offered("button", button_id, offered)}
        return await self.send_raw("interactive", {"type": "button_reply", "button_reply": chosen}, text=chosen["title"])

    async def pick(self, row_id: str) -> tuple[Reply, ...]:
        """Picks a row of a list that the bot has shown at some time.

        Raises:
            NotOffered: it has not.
        """
        rows = {row.id: row for reply in self.said for row in reply.rows}
        title = _offered("row", row_id, {i: row.title for i, row in rows.items()})
        described = rows[row_id].description
        chosen = {"id": row_id, "title": title, **({"description": described} if described is not None else {})}
        return await self.send_raw("interactive", {"type": "list_reply", "list_reply": chosen}, text=title)

    async def send_image(self, caption: str | None = None, *, media_id: str = "1", mime_type: str = "image/jpeg") -> tuple[Reply, ...]:
        """Sends a picture."""
        return await self.send_media("image", caption, media_id=media_id, mime_type=mime_type)

    async def send_media(self, kind: str, caption: str | None = None, *, media_id: str = "1", **fields: Any) -> tuple[Reply, ...]:
        """Sends a file: kind is image, video, audio, document or sticker; fields are WhatsApp's, such as `filename` or `voice`."""
        content = {"id": media_id, "sha256": "", **fields, **({"caption": caption} if caption is not None else {})}
        return await self.send_raw(kind, content, text=caption)

    async def send_location(
        self, latitude: float, longitude: float, name: str | None = None, address: str | None = None
    ) -> tuple[Reply, ...]:
        """Sends a place."""
        named = {k: v for k, v in (("name", name), ("address", address)) if v is not None}
        return await self.send_raw("location", {"latitude": latitude, "longitude": longitude, **named})

    async def send_contact(self, name: str, *phones: str) -> tuple[Reply, ...]:
        """Passes on a visiting card."""
        return await self.send_raw("contacts", [{"name": {"formatted_name": name}, "phones": [{"phone": p} for p in phones]}])

    async def react(self, emoji: str | None, to: str = "wamid.1") -> tuple[Reply, ...]:
        """Puts an emoji at a message, or takes it back with None."""
        return await self.send_raw("reaction", {"message_id": to, **({"emoji": emoji} if emoji else {})}, text=emoji, reply_to=to)

    async def send_raw(
        self, kind: str, content: Mapping[str, Any] | Sequence[Any], *, text: str | None = None, reply_to: str | None = None
    ) -> tuple[Reply, ...]:
        """Sends a message of any type, with the part that is named after it as WhatsApp writes it."""
        self._messages += 1
        part: Json = dict(content) if isinstance(content, Mapping) else {"value": list(content)}
        wamid = f"wamid.of-contact.{self._messages}"
        event = {"id": str(uuid4()), "type": kind, "text": text or None, "content": part, "wamid": wamid, "reply_to": reply_to}
        return await self._call(event)

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """Rows of the bot's tables, or any other statement on its database."""
        connection = await self._scratch.acquire()
        try:
            return await connection.fetch(query, *arguments)
        finally:
            await self._scratch.release(connection)

    async def _call(self, event: Json) -> tuple[Reply, ...]:
        if self.closed:
            self.conversation, self.state, self.version, self.closed = Conversation(uuid4(), _NUMBER), INITIAL, 0, False
        opened: list[tuple[Context, Database]] = []

        def begin() -> Context:
            database = ScratchDatabase(self._scratch)
            log = Log(lambda level, text: self.log.append(Line(level, text)))
            context = Context(read(_over_the_wire(event)), self.contact, self.conversation, self.state, database, log, self.now)
            opened.append((context, database))
            return context

        def report(error: Exception) -> None:
            self.log.append(Line("error", own_trace(error, self._home)))

        self.replies = ()
        try:
            played = await play(self.bot, begin, self.version, report)
        finally:
            for _, database in opened:
                await database.close()
        return self._commit(played, opened[-1][0].replies)

    def _commit(self, played: Played, replies: tuple[Reply, ...]) -> tuple[Reply, ...]:
        """As `commit_run` does."""
        result = _over_the_wire(played.result)
        self.version += 1
        self.state = result.get("state", self.state)
        self.closed = result.get("end", False)
        self.replies = replies
        self.said.extend(replies)
        return replies


def pytest_pyfunc_call(pyfuncitem: Any) -> bool | None:
    """Runs `async def` tests. Import it in `conftest.py`, unless another plugin runs them (pytest-asyncio, anyio): pytest finds it by its name."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}))  # noqa: SLF001  (as the plugins do)
    return True


def _forget(home: Path) -> None:
    """Takes the modules of this bot, and of the one that was loaded before it, from those that Python knows. Tests and libraries stay."""
    before = getattr(sys.modules.get("bot"), "__file__", None)
    homes = [home, *([Path(before).resolve().parent] if before is not None else [])]
    for known, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/")
        inside = [part for h in homes if file.is_relative_to(h) for part in file.relative_to(h).parts]
        if inside and not any(p.startswith((".", "test")) or p in {"conftest.py", "site-packages"} for p in inside):
            del sys.modules[known]
    importlib.invalidate_caches()


def _offered(what: str, chosen: str, offered: Mapping[str, str]) -> str:
    if chosen not in offered:
        there = ", ".join(repr(i) for i in offered) or "none"
        raise NotOffered(f"the bot has shown no {what} with the id {chosen!r}; there are: {there}")
    return offered[chosen]


def _over_the_wire(body: Json) -> Json:
    """What is left of it on the other side of a frame."""
    packed = protocol.pack(protocol.Handled(0, body, recorded=False))
    frame = protocol.WORKER_FRAMES.decode(packed[protocol.HEADER.size :])
    return frame.result if isinstance(frame, protocol.Handled) else {}
