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
import inspect
import json
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self
from uuid import UUID, uuid4

import asyncpg

from loquat import protocol
from loquat.asking import Asks
from loquat.bot import INITIAL, Bot
from loquat.config import Config, Secrets
from loquat.contact import LARGEST_ATTRIBUTES, Contact, ContactRefused
from loquat.context import Context, Conversation, Log, Manner, Means
from loquat.fakes import Ear, KeptFiles, MemoryCells, Network, NoNetwork, Remembered, answered
from loquat.held import Held
from loquat.loading import forget, load, own_trace
from loquat.media import File, Files, Uploaded
from loquat.memory import Memory
from loquat.messages import Json
from loquat.outside import Outside
from loquat.play import Played, play, play_schedule
from loquat.replies import Reply, joined
from loquat.schedules import Due, ScheduleContext
from loquat.scratch import NoScratchDatabase, SchemaFailed, Scratch, ScratchDatabase, rows_of
from loquat.timers import HANDBACK, Timers, happened
from loquat.values import DEEPEST, as_json
from loquat.voice import Voice
from loquat.web import Http

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["BotTester", "Line", "NoNetwork", "NoScratchDatabase", "NotOffered", "SchemaFailed", "pytest_pyfunc_call"]

_START: Final = datetime(2026, 1, 5, 9, tzinfo=UTC)  # a Monday morning
_NUMBER: Final = "100000000000001"


class NotOffered(AssertionError):
    """The test chose what the bot has not offered: nobody could."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the bot's log."""

    level: str
    text: str


@dataclass(frozen=True, slots=True)
class Pending:
    """A timer that is set."""

    due_at: datetime
    data: Any
    until_answer: bool


class Advance:
    """Time has gone by. Awaited, the timers that are due meanwhile are fired, each at its time; else they are before the next message."""

    def __init__(self, tester: BotTester, began: datetime) -> None:
        self._tester, self._began = tester, began

    def __await__(self) -> Generator[Any, None, tuple[Reply, ...]]:
        return self._tester.fire_due(self._began).__await__()


class BotTester:
    """One contact who writes to a bot, and the platform between them.

    State, version and conversation move as the platform moves them: by what a handler that ended well gave back, and not at all after one
    that failed, whose exception the test gets. Times are those of `now`, which stands still until `advance`.

    `database` is the address of a throw-away PostgreSQL for `ctx.db` and `ctx.pool`; the tester works in a schema of its own there, which it removes at
    the end of a `with`. The system's tables `contacts`, `conversations` and `messages` are there, to be read, with what is the contact's. `schema` names
    SQL files that make the bot's own tables, run when the database is first used; a name in them has no schema in front, or it is not the tester's.

    `name`, `language`, `phone_number` and `attributes` are those of the contact.

    `config` and `secrets` are what the owner has set; change them between messages as an owner would. `http` answers the bot's requests.
    """

    def __init__(
        self,
        bot: Bot,
        *,
        database: str | None = None,
        schema: Path | str | Sequence[Path | str] = (),
        name: str | None = "Ada",
        language: str | None = None,
        phone_number: str | None = None,
        attributes: Mapping[str, Any] = MappingProxyType({}),
        state: str = INITIAL,
        config: Mapping[str, Any] | None = None,
        secrets: Mapping[str, str] | None = None,
        http: Network | None = None,
        join_texts: bool = False,
    ) -> None:
        self.bot = bot
        self.join_texts = join_texts
        self.held = Held()
        """Who holds the conversation: after `ctx.handoff` it is people, until `hand_back` or the time that it was given is over."""
        noted = json.loads(as_json(dict(attributes), "the attributes", LARGEST_ATTRIBUTES, ContactRefused, deepest=DEEPEST))
        self.contact = Contact(uuid4(), name, language=language, phone_number=phone_number, attributes=noted)
        """As it is noted: `name`, `language`, `attributes`."""
        self.config: dict[str, Any] = dict(config or {})
        self.secrets: dict[str, str] = dict(secrets or {})
        self.memory = Remembered(lambda: self.now)
        """What the bot remembers."""
        self.contact_memory = Remembered(lambda: self.now)
        """What it remembers of the contact."""
        self.http = http
        self._files = KeptFiles()
        self.state = state
        self.version = 0
        self.now = _START
        self.log: list[Line] = []
        self.replies: tuple[Reply, ...] = ()
        """What was said to the last message: what `reply_now` said, then what was said at the handler's end."""
        self.said: list[Reply] = []
        """Everything that was said so far."""
        self.closed = False
        """Whether the conversation is closed: the next message opens another."""
        self.conversation = Conversation(uuid4(), _NUMBER)
        self.timers: dict[str, Pending] = {}
        """Those that are set, by name."""
        self.sent: list[tuple[UUID, Reply]] = []
        """What schedules said to others than this contact."""
        self._ear = Ear(self._hear)
        self._scratch = Scratch(database, self._rows, [schema] if isinstance(schema, Path | str) else schema)
        self._talk: list[Json] = []
        self._messages = 0
        self._home = Path("/")

    @classmethod
    def load(cls, folder: Path | str, **more: Any) -> Self:
        """With the bot of a folder, loaded anew as a worker loads it; otherwise as `BotTester`."""
        home = Path(folder).resolve()
        forget(home)
        sys.path[:] = [p for p in sys.path if p != str(home)]
        made = cls(load(home), **more)
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

    @property
    def typings(self) -> int:
        """How often the contact was shown, after the last message, that an answer is being written."""
        return self._ear.typings

    def take_over(self) -> None:
        """A person holds the conversation from now on: the bot hears nothing, unless it has an observer."""
        self.held.take("person", self.now)
        self._note_hold()

    def hand_back(self) -> Advance:
        """The conversation is the bot's again. What was said meanwhile it does not answer.

        Awaited, `@bot.on_handback` is called, and what was said is given; else that comes before the next message.
        """
        before = self.held.look(self.now).holder
        self.held.release()
        self._note_hold()
        if before != "bot" and HANDBACK in self.bot.timers:
            self.timers[HANDBACK] = Pending(self.now, {"held_by": before, "lapsed": False}, until_answer=False)
        return Advance(self, self.now)

    def _note_hold(self) -> None:
        """The bot that wants it is told when the hold is over."""
        self.timers.pop(HANDBACK, None)
        if self.held.until is not None and HANDBACK in self.bot.timers and not self.closed:
            self.timers[HANDBACK] = Pending(self.held.until, {"held_by": self.held.holder, "lapsed": True}, until_answer=False)

    def advance(self, **by: float) -> Advance:
        """Lets time go by, as `timedelta` takes it: `await tester.advance(hours=2)` fires the timers that are due meanwhile, and gives what was said."""
        began, self.now = self.now, self.now + timedelta(**by)
        return Advance(self, began)

    async def fire_due(self, began: datetime) -> tuple[Reply, ...]:
        """Fires the timers that are due by now, in order; none before `began`, when time began to go by."""
        until, said = self.now, list[Reply]()
        try:
            while pending := [(t.due_at, name) for name, t in self.timers.items() if t.due_at <= until]:
                due_at, name = min(pending)
                self.now = max(due_at, began)
                data = self.timers.pop(name).data
                event = {"id": str(uuid4()), "timer": {"name": name, "data": data, "due_at": due_at.isoformat()}}
                said += await self._call(event)
        finally:
            self.now = until
        self.replies = tuple(said)
        return self.replies

    async def run_schedule(self, name: str, *, due_at: datetime | None = None) -> tuple[Reply, ...]:
        """Runs a schedule, as if its time had come; what was said to this contact. What it said to others is in `sent`.

        Raises:
            NotOffered: the bot has none of this name.
        """
        _offered("schedule", name, dict.fromkeys(self.bot.schedules, name))
        cells, database = MemoryCells(self.memory, self.contact_memory), ScratchDatabase(self._scratch)
        event = Due(uuid4(), name, due_at or self.now)
        context = ScheduleContext(event, database, self._log_of_bot(), self.now, self._means(cells))
        try:
            await play_schedule(self.bot, context)
        finally:
            await database.close()
        self.memory = cells.bot
        self.sent += [(contact, reply) for contact, reply in context.sends if contact != self.contact.id]
        self.replies = tuple(reply for contact, reply in context.sends if contact == self.contact.id)
        for reply in self.replies:
            self._note(str(uuid4()), "out", reply.type, reply.text, sender="automation")
        self.said.extend(self.replies)
        return self.replies

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

    async def send_image(
        self, caption: str | None = None, *, data: bytes | None = None, media_id: str = "1", mime_type: str = "image/jpeg"
    ) -> tuple[Reply, ...]:
        """Sends a picture; `data` is what `ctx.media.download` gives of it."""
        return await self.send_media("image", caption, data=data, media_id=media_id, mime_type=mime_type)

    async def send_media(
        self, kind: str, caption: str | None = None, *, data: bytes | None = None, media_id: str = "1", **fields: Any
    ) -> tuple[Reply, ...]:
        """Sends a file: kind is image, video, audio, document or sticker; fields are WhatsApp's, such as `filename` or `voice`."""
        if data is not None:
            media_id = self._files.keep(data, str(fields.get("mime_type", "application/octet-stream")))
        content = {"id": media_id, "sha256": "", **fields, **({"caption": caption} if caption is not None else {})}
        return await self.send_raw(kind, content, text=caption)

    @property
    def uploads(self) -> tuple[tuple[Uploaded, File, str], ...]:
        """What the bot uploaded, each with what it is said by, the file, and its name."""
        return tuple(self._files.uploads)

    async def send_location(
        self, latitude: float, longitude: float, name: str | None = None, address: str | None = None
    ) -> tuple[Reply, ...]:
        """Sends a place."""
        named = {k: v for k, v in (("name", name), ("address", address)) if v is not None}
        return await self.send_raw("location", {"latitude": latitude, "longitude": longitude, **named})

    async def send_contact(self, name: str, *phones: str) -> tuple[Reply, ...]:
        """Passes on a visiting card."""
        return await self.send_raw("contacts", [{"name": {"formatted_name": name}, "phones": [{"phone": p} for p in phones]}])

    async def submit_flow(self, flow: str | None, data: Mapping[str, Any], *, reply_to: str | None = None) -> tuple[Reply, ...]:
        """Fills in a form that was sent with this `flow_token`, such as "booking" or "booking:7f3a"; None: it does not pass its token on."""
        answer = {**({"flow_token": flow} if flow is not None else {}), **data}
        filled = {"name": "flow", "body": "Sent", "response_json": json.dumps(answer)}
        return await self.send_raw("interactive", {"type": "nfm_reply", "nfm_reply": filled}, text="Sent", reply_to=reply_to)

    async def react(self, emoji: str | None, to: str = "wamid.1") -> tuple[Reply, ...]:
        """Puts an emoji at a message, or takes it back with None."""
        return await self.send_raw("reaction", {"message_id": to, **({"emoji": emoji} if emoji else {})}, text=emoji, reply_to=to)

    async def send_raw(
        self, kind: str, content: Mapping[str, Any] | Sequence[Any], *, text: str | None = None, reply_to: str | None = None
    ) -> tuple[Reply, ...]:
        """Sends a message of any type, with the part that is named after it as WhatsApp writes it."""
        await self.fire_due(self.now)
        self.timers = {name: t for name, t in self.timers.items() if not t.until_answer}
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
            self.held = Held()
        if "timer" not in event:
            self._note(event["id"], "in", event["type"], event["text"])
        held = self.held.look(self.now)
        if held.holder != "bot" and ("timer" in event or self.bot.observer is None):
            self.replies = ()
            return ()
        opened: list[tuple[Context, MemoryCells]] = []
        voice = self._ear.begin(lambda: self.now)

        def begin() -> Context:
            cells = MemoryCells(self.memory, self.contact_memory)
            opened.append((self._context(event, cells, voice), cells))
            return opened[-1][0]

        def report(error: Exception) -> None:
            self.log.append(Line("error", own_trace(error, self._home)))

        self.replies = ()
        try:
            played = await play(self.bot, begin, self.version, report)
        finally:
            for context, _ in opened:
                await context.db.close()
        context, cells = opened[-1]
        if not played.asks:
            self.memory, self.contact_memory = cells.bot, cells.contact
        if held.holder == "bot":
            held.apply(played.result, self.now, of_message="timer" not in event)
            if held.holder != "bot":
                self._note_hold()
        return self._commit(played, tuple(joined(context.replies)) if self.join_texts else context.replies)

    def _context(self, event: Json, cells: MemoryCells, voice: Voice) -> Context:
        known = self.contact
        contact = Contact(
            known.id,
            known.name,
            language=known.language,
            phone_number=known.phone_number,
            attributes=known.attributes,
            memory=Memory(cells, of_contact=True),
        )
        database, log, timers = ScratchDatabase(self._scratch), self._log_of_bot(), Timers(self.now, list(self.timers))
        happening = happened(_over_the_wire(event))
        manner = Manner(self.held.holder != "bot", self.join_texts, Asks.of(_kept(self.held.ask), happening), voice=voice)
        return Context(happening, contact, self.conversation, self.state, database, log, self.now, self._means(cells), timers, manner)

    def _log_of_bot(self) -> Log:
        return Log(lambda level, text: self.log.append(Line(level, text)))

    def _means(self, cells: MemoryCells) -> Means:
        return Means(
            Memory(cells, of_contact=False),
            Outside(self._scratch),
            Http(lambda request: answered(self.http, request)),
            Files(self._files),
            Config(self.bot.settings, json.loads(json.dumps(self.config))),
            Secrets(self.secrets),
            self.bot.tools,
        )

    def _commit(self, played: Played, replies: tuple[Reply, ...]) -> tuple[Reply, ...]:
        """As `commit_run` does."""
        result = _over_the_wire(played.result)
        self.version += 1
        self.state = result.get("state", self.state)
        self.closed = result.get("end", False)
        self._apply(result.get("contact", {}))
        self._set(result.get("timers", []))
        for reply in replies:
            self._hear(reply)
        return self.replies

    def _hear(self, reply: Reply) -> None:
        self._note(str(uuid4()), "out", reply.type, reply.text)
        self.replies = (*self.replies, reply)
        self.said.append(reply)

    def _apply(self, changes: Json) -> None:
        known = self.contact
        attributes = {**known.attributes, **changes.get("attributes", {})}
        self.contact = Contact(
            known.id,
            changes.get("name", known.name),
            language=changes.get("language", known.language),
            phone_number=known.phone_number,
            attributes={k: v for k, v in attributes.items() if v is not None},
        )

    def _set(self, changes: Sequence[Json]) -> None:
        for change in changes:
            if change["at"] is None:
                self.timers.pop(change["name"], None)
            else:
                self.timers[change["name"]] = Pending(datetime.fromisoformat(change["at"]), change["data"], change["until_answer"])
        if self.closed:
            self.timers.clear()

    def _note(self, message: str, direction: str, kind: str, text: str | None, sender: str | None = None) -> None:
        sender = sender or ("contact" if direction == "in" else "bot")
        row = {
            "id": message,
            "conversation_id": str(self.conversation.id),
            "direction": direction,
            "type": kind,
            "text": text,
            "sender": sender,
        }
        self._talk.append({**row, "sent_at": (self.now + timedelta(microseconds=len(self._talk))).isoformat()})

    def _rows(self) -> Mapping[str, Sequence[Json]]:
        """What stands in the system's tables."""
        now = {"status": "closed" if self.closed else "open", "state": self.state, "version": self.version, "holder": self.held.holder}
        return rows_of(self.contact, self.conversation, now, self._talk)


def pytest_pyfunc_call(pyfuncitem: Any) -> bool | None:
    """Runs `async def` tests. Import it in `conftest.py`, unless another plugin runs them (pytest-asyncio, anyio): pytest finds it by its name."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}))  # noqa: SLF001  (as the plugins do)
    return True


def _offered(what: str, chosen: str, offered: Mapping[str, str]) -> str:
    if chosen not in offered:
        there = ", ".join(repr(i) for i in offered) or "none"
        raise NotOffered(f"the bot has shown no {what} with the id {chosen!r}; there are: {there}")
    return offered[chosen]


def _kept(notes: Json | None) -> Json | None:
    """As the platform keeps it: as JSON."""
    return json.loads(json.dumps(notes)) if notes is not None else None


def _over_the_wire(body: Json) -> Json:
    """What is left of it on the other side of a frame."""
    packed = protocol.pack(protocol.Handled(0, body, recorded=False))
    frame = protocol.WORKER_FRAMES.decode(packed[protocol.HEADER.size :])
    return frame.result if isinstance(frame, protocol.Handled) else {}
