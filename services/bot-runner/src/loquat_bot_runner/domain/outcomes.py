"""What follows when a call of bot code fails: the table of docs/architecture.md, "The bus", as a pure function."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from loquat_common.bus.port import Dead, Defer, Outcome, Retry

from loquat_bot_runner.errors import (
    BotError,
    CallFailed,
    DatabaseLost,
    DoesNotStart,
    OutOfMemory,
    PackagesRefused,
    ProjectDatabaseAway,
    ProtocolViolated,
    SlowStart,
    Superseded,
    TimedOut,
)

STALE: Final = timedelta(hours=24)
"""Where a project has set nothing else: a message older than this when its turn comes is recorded and not answered, as nobody waits for it."""
_TRIES: Final = 3
_TIMEOUT_TRIES: Final = 2  # a slow service outside may have recovered
_AWAY: Final = 5.0
_LOST_TRIES: Final = 8
"""Of a database that only the bot found away, each pause twice the one before: ten minutes, longer than a cluster takes to start again, or than a busy bot's
own handlers keep all its connections."""
_SLOW: Final = 30.0  # three times as long as a start may take: a bot that never loads has a quarter of a place at most


_AT_ONCE: Final[dict[type[CallFailed], Outcome]] = {
    Superseded: Retry(0.2, "another run was first, again and again"),
    ProjectDatabaseAway: Defer(_AWAY, "the project's database does not answer"),
    DoesNotStart: Defer(1.0, "the deployed version does not start"),
    SlowStart: Defer(_SLOW, "the deployed version did not load in time"),
    PackagesRefused: Defer(_SLOW, "the deployed version's packages cannot be installed"),
    OutOfMemory: Dead("the bot used more memory than it may"),
    ProtocolViolated: Dead("the bot's process broke the protocol"),
}


def after(failure: CallFailed, attempts: int) -> Outcome:
    """`attempts` counts the tries that failed before this one.

    A retry waits longer than an event may keep its partition (2 s), so that a failing bot's event becomes a row after its first try.
    """
    if (known := _AT_ONCE.get(type(failure))) is not None:
        return known
    if isinstance(failure, TimedOut):
        return (
            Dead(f"the bot took too long {attempts + 1} times") if attempts + 1 >= _TIMEOUT_TRIES else Retry(2.5, "the bot took too long")
        )
    if isinstance(failure, DatabaseLost):
        many = attempts + 1 >= _LOST_TRIES
        return Dead(f"the bot lost its database {attempts + 1} times") if many else Retry(_AWAY * 2**attempts, "the bot lost its database")
    if isinstance(failure, BotError):
        return Dead(f"the bot failed {attempts + 1} times") if attempts + 1 >= _TRIES else Retry(2.5 * 2**attempts, "the bot failed")
    raise TypeError(f"no outcome for {type(failure).__name__}")
