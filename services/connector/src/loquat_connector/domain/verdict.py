"""What Meta's answer means for a message, as data. Codes and classes: reference of the Cloud API, "Errors"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

State = Literal["queued", "accepted", "failed", "unknown"]
_TRIES: Final = 4
"""Tries of a message that Meta answers with an error of its own; a reply to a person is worth minutes, not hours."""
_LONGEST_PAIR: Final = 4  # 4^4 s: longer than anybody waits for a reply


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows: `queued` again after `wait` seconds, or an end.

    `reconnect`: the number's token does not work any more. `park`: seconds for which nothing at all can be sent from the number.
    """

    state: State
    wait: float = 0.0
    wamid: str | None = None
    http_status: int | None = None
    code: int | None = None
    title: str | None = None
    details: str | None = None
    fbtrace_id: str | None = None
    reconnect: bool = False
    park: float = 0.0


_TRANSIENT: Final = frozenset({1, 2, 131000, 131016, 133004})
_WAITS: Final[Mapping[int, float]] = {  # again and again, until the message's own deadline
    131057: 60,
    2494100: 60,
    4: 60,
    17: 60,
    341: 60,
    613: 60,
    80007: 60,
    130429: 1,
    131048: 3600,
    131064: 3600,
    132069: 3600,
    133015: 300,
    134101: 600,
}
_MEDIA: Final = 131053  # Meta could not fetch a link: once more, then it is the message's fault
_MEDIA_TRIES: Final = 2
_MEDIA_WAIT: Final = 5.0
_DISABLED: Final = frozenset({33, 368, 131031, 131037, 131042, 131044, 131045, 133010})
"""Class X: deleted, locked, unpaid, without a name, not registered. A person must act at Meta; no message is to blame."""
_PARKED: Final = 600.0  # seconds; then one share of messages tries whether it was mended
_PAIR: Final = 131056
_RECONNECT: Final = frozenset({0, 3, 10, 102, 190, 131005, *range(200, 300)})
_RECONNECTED: Final = 5  # seconds; the number's state keeps the message until it is connected again, and then it goes soon


def not_sent(reason: str, attempts: int) -> Verdict:
    """The connection was never made: nothing was sent, try again."""
    return Verdict("queued", wait=min(60.0, 0.5 * 2.0 ** min(attempts, 7)), title=reason)


def nobody_knows(reason: str) -> Verdict:
    """The request was written and no answer came: never a blind second send. A status will tell."""
    return Verdict("unknown", title=reason)


def answered(status: int, body: Mapping[str, Any] | None, attempts: int) -> Verdict:
    """What Meta's answer to attempt number `attempts` (from 1) means."""
    error: Any = (body or {}).get("error")
    if isinstance(error, Mapping):
        return _refused(status, error, attempts)  # pyright: ignore[reportUnknownArgumentType]  (JSON)
    wamid = _wamid(body)
    if status < 300 and wamid is not None:  # noqa: PLR2004
        return Verdict("accepted", wamid=wamid, http_status=status)
    if 400 <= status < 500:  # noqa: PLR2004
        return Verdict("failed", http_status=status, title=f"Meta answered {status} without a reason")
    return Verdict("unknown", http_status=status, title=f"Meta answered {status} without a message id")


def _wamid(body: Mapping[str, Any] | None) -> str | None:
    messages = (body or {}).get("messages")
    first: Any = messages[0] if isinstance(messages, list) and messages else None  # pyright: ignore[reportUnknownVariableType]  (JSON)
    wamid: Any = first.get("id") if isinstance(first, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  (JSON)
    return wamid if isinstance(wamid, str) and wamid else None


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}  # pyright: ignore[reportUnknownVariableType]  (JSON)


def _short(value: object) -> str | None:
    return None if value is None else str(value)[:1000]


def _refused(status: int, error: Mapping[str, Any], attempts: int) -> Verdict:
    code = error.get("code")
    known = code if isinstance(code, int) else -1
    details = _object(error.get("error_data")).get("details")
    told: dict[str, Any] = {
        "http_status": status,
        "code": known if abs(known) < 2**31 else None,
        "title": str(error.get("message") or "")[:500] or None,
        "details": _short(details),
        "fbtrace_id": str(error.get("fbtrace_id") or "")[:100] or None,
    }
    if known in _RECONNECT:
        return Verdict("queued", wait=_RECONNECTED, reconnect=True, **told)
    if known in _DISABLED:
        return Verdict("queued", wait=_RECONNECTED, park=_PARKED, **told)
    wait = _again(known, attempts)
    return Verdict("failed", **told) if wait is None else Verdict("queued", wait=wait, **told)


def _again(code: int, attempts: int) -> float | None:
    """Seconds until the message is tried again; None: never."""
    if code == _PAIR:
        return 4.0 ** min(attempts - 1, _LONGEST_PAIR)
    if code == _MEDIA and attempts < _MEDIA_TRIES:
        return _MEDIA_WAIT
    if code in _TRANSIENT and attempts < _TRIES:
        return 0.5 * 4.0 ** (attempts - 1)
    return _WAITS.get(code)
