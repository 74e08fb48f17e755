"""What can go wrong with a call of bot code: a closed set. What follows from each is in `domain/outcomes.py`."""

from __future__ import annotations

from uuid import UUID


class CallFailed(Exception):
    """A call of bot code did not succeed."""

    def __init__(self, error: str, trace: str = "") -> None:
        error, self.trace = (text.replace("\0", "") for text in (error, trace))  # the bot's own words: no database keeps that character
        super().__init__(error)
        self.error = error
        self.run: UUID | None = None
        """The row that tells of it."""


class BotError(CallFailed):
    """The handler raised, or the worker died of itself."""


class TimedOut(CallFailed):
    """The handler took longer than it may; its worker was ended if it did not obey."""


class OutOfMemory(CallFailed):
    """The handler used more memory than it may."""


class ProtocolViolated(CallFailed):
    """The worker said something that is none of the protocol."""


class Superseded(CallFailed):
    """Another run was first: begin again."""


class Unsaid(Exception):
    """What a bot wants to say at once is not said; the text is for its author. The call goes on."""


class ProjectDatabaseAway(CallFailed):
    """The bot could not reach its own database: the platform's fault."""


class DatabaseLost(CallFailed):
    """The bot says that it could not reach its own database, and its door knows nothing of it: the bot may have seen to that itself."""


class DoesNotStart(CallFailed):
    """The version does not load. Nothing runs until the next deployment."""


class SlowStart(DoesNotStart):
    """The version was not loaded in time. The machine may be busy, so it is tried again without waiting for a deployment."""


class PackagesRefused(SlowStart):
    """What the version's lock names cannot be installed. What an index has may change, so it is tried again."""
