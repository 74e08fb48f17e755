"""What a bot's word is worth: checked before anything is made of it."""

from __future__ import annotations

import json
from typing import Any, Final

from loquat_events.conversations import Outgoing
from pydantic import ValidationError

from loquat_bot_runner.errors import ProtocolViolated

_MOST: Final = 50
_LONGEST_STATE: Final = 60
_LARGEST: Final = 256 << 10
_KEYS: Final = {"replies", "state", "end"}


def checked(result: dict[str, Any]) -> dict[str, Any]:
    """The result as `commit_run` takes it.

    Raises:
        ProtocolViolated: the SDK would not have made it.
    """
    state, replies, end = result.get("state"), result.get("replies", []), result.get("end", False)
    if not result.keys() <= _KEYS or not isinstance(replies, list) or not isinstance(end, bool):
        raise ProtocolViolated("the result has another shape")
    if state is not None and (not isinstance(state, str) or not 1 <= len(state) <= _LONGEST_STATE):
        raise ProtocolViolated("the state has another shape")
    if len(replies) > _MOST or len(json.dumps(result)) > _LARGEST:  # pyright: ignore[reportUnknownArgumentType]
        raise ProtocolViolated("too many replies, or too large")
    try:
        said = [Outgoing.model_validate(r).model_dump(exclude_none=True) for r in replies]  # pyright: ignore[reportUnknownVariableType]
    except ValidationError:
        raise ProtocolViolated("a reply has another shape") from None
    return {"replies": said, **({"state": state} if state is not None else {}), **({"end": True} if end else {})}
