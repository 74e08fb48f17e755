"""What a handler is for: rules that look at a message, and which of them comes first."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from loquat.handlers import Function, name, where
from loquat.messages import ButtonReply, Choice, FlowReply, ListReply, Message, Text

LONGEST_WORDS: Final = 4096
"""Characters of a text that may be the words of a rule: as many as we could send."""
_MARKS: Final = " .,;:!?\N{HORIZONTAL ELLIPSIS}\N{INVERTED EXCLAMATION MARK}\N{INVERTED QUESTION MARK}"


@dataclass(frozen=True, slots=True)
class Match:
    """What a rule found: for the handler's second parameter, and for those that a pattern names."""

    found: Any
    named: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Heard:
    """A message, read once for all rules. `words` are its plain words, `command` its name if it is one, `rest` what follows that; of no text: None."""

    message: Message
    text: str | None = None
    words: str | None = None
    command: str | None = None
    rest: str = ""

    @classmethod
    def of(cls, message: Message) -> Heard:
        """The reading of a message."""
        if not isinstance(message, Text):
            return cls(message)
        head, *rest = message.text.split(maxsplit=1) or [""]
        command = head[1:].casefold() if head.startswith("/") else None
        words = plain(message.text) if len(message.text) <= LONGEST_WORDS else None
        return cls(message, message.text, words, command, rest[0].strip() if rest else "")


@dataclass(frozen=True, slots=True)
class Command:
    """A text that begins with `/name`."""

    RANK: ClassVar[int] = 0
    named: str

    def match(self, heard: Heard) -> Match | None:
        """The rest of the text."""
        return Match(heard.rest) if heard.command == self.named else None

    def __str__(self) -> str:
        return f"/{self.named}"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A button or row with this id."""

    RANK: ClassVar[int] = 1
    kind: type[Choice]
    id: str

    def match(self, heard: Heard) -> Match | None:
        """The id."""
        message = heard.message
        return Match(self.id) if isinstance(message, self.kind) and message.choice_id == self.id else None

    def __str__(self) -> str:
        return f'{_NOUN[self.kind]} "{self.id}"'


@dataclass(frozen=True, slots=True)
class ChosenFrom:
    """A button or row whose id begins so."""

    RANK: ClassVar[int] = 2
    kind: type[Choice]
    prefix: str

    def match(self, heard: Heard) -> Match | None:
        """The rest of the id."""
        message = heard.message
        if isinstance(message, self.kind) and message.choice_id.startswith(self.prefix):
            return Match(message.choice_id[len(self.prefix) :])
        return None

    def __str__(self) -> str:
        return f'{_NOUN[self.kind]} "{self.prefix}..."'


@dataclass(frozen=True, slots=True)
class Filled:
    """A form of this name, filled in."""

    RANK: ClassVar[int] = 1
    flow: str

    def match(self, heard: Heard) -> Match | None:
        """The message."""
        return Match(heard.message) if isinstance(heard.message, FlowReply) and heard.message.flow == self.flow else None

    def __str__(self) -> str:
        return f'flow "{self.flow}"'


@dataclass(frozen=True, slots=True)
class Words:
    """A text that is these words: case, blanks and marks around them are no matter."""

    RANK: ClassVar[int] = 3
    words: str

    def match(self, heard: Heard) -> Match | None:
        """The text."""
        return Match(heard.text) if heard.words == self.words else None

    def __str__(self) -> str:
        return f'text "{self.words}"'


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text in which a regular expression is found."""

    RANK: ClassVar[int] = 4
    expression: re.Pattern[str]

    def match(self, heard: Heard) -> Match | None:
        """Its named groups."""
        found = self.expression.search(heard.text) if heard.text is not None else None
        return Match(found, found.groupdict()) if found is not None else None

    def __str__(self) -> str:
        return f"text like {self.expression.pattern}"


@dataclass(frozen=True, slots=True)
class Kind:
    """A message of this kind."""

    RANK: ClassVar[int] = 5
    kind: type[Message]

    def match(self, heard: Heard) -> Match | None:
        """The message."""
        return Match(heard.message) if isinstance(heard.message, self.kind) else None

    def __str__(self) -> str:
        return f"any {self.kind.__name__}"


Trigger = Command | Chosen | ChosenFrom | Filled | Words | Pattern | Kind
_NOUN: Final[dict[type[Choice], str]] = {ButtonReply: "button", ListReply: "row"}


def plain(text: str) -> str:
    """Words without case, doubled blanks, and marks around them."""
    return " ".join(text.casefold().split()).strip(_MARKS)


@dataclass(frozen=True, slots=True)
class Rule:
    """A handler, when it is called, and whether it takes what was found. `state` None: in every state."""

    trigger: Trigger
    state: str | None
    order: int
    handler: Function
    takes: bool
    burst: float = 0.0
    """Seconds of quiet that end a burst of texts, which is one call; 0: each text is one."""

    @property
    def precedence(self) -> tuple[int, bool, int, int]:
        """What sorts rules.

        The sort of rule; one state before all states; longer prefixes and narrower kinds; the order in which they stand in the code.
        """
        match self.trigger:
            case ChosenFrom(prefix=prefix):
                narrow = len(prefix)
            case Kind(kind=kind):
                narrow = len(kind.__mro__)
            case _:
                narrow = 0
        return self.trigger.RANK, self.state is None, -narrow, self.order

    def fits(self, heard: Heard, state: str) -> Match | None:
        """What was found, if it is for this message in this state."""
        return self.trigger.match(heard) if self.state is None or self.state == state else None


@dataclass(frozen=True, slots=True)
class Declared:
    """A line of the table of a bot's handlers."""

    when: str
    state: str
    handler: str
    where: str

    @classmethod
    def of(cls, when: str, state: str | None, function: object) -> Declared:
        """Of a function."""
        return cls(when, state or "", name(function), where(function))
