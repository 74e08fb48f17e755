"""What Meta would say to a message: its own checks, its own error bodies. Pure."""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]
_TEXT: Final = 4096
_BODY: Final = 1024
_TITLES: Final = {
    131009: "Parameter value is not valid",
    131008: "Required parameter is missing",
    100: "Invalid parameter",
    131056: "Pair rate limit hit",
}


class GraphError(Exception):
    """An answer of Meta's that is an error."""

    def __init__(self, status: int, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.details = status, code, message, details

    def body(self, trace: str) -> Json:
        """In Meta's shape."""
        kind = "OAuthException"
        data = {"messaging_product": "whatsapp", "details": self.details or self.message}
        return {
            "error": {"message": f"(#{self.code}) {self.message}", "type": kind, "code": self.code, "error_data": data, "fbtrace_id": trace}
        }


FAULTS: Final[dict[str, GraphError]] = {
    "500": GraphError(500, 131000, "Something went wrong"),
    "429": GraphError(429, 130429, "Rate limit hit", "Cloud API message throughput has been reached."),
}


def error_of(code: int) -> GraphError:
    """The error of a code that a test asked for."""
    status = 401 if code in {0, 190} else 429 if code in {4, 80007, 130429, 131056} else 500 if code in {1, 2, 131000, 131016} else 400
    return GraphError(status, code, _TITLES.get(code, f"Error {code}"))


def checked(body: Json) -> tuple[str, str]:
    """Whom a message is for, and its type.

    Raises:
        GraphError: Meta would refuse it.
    """
    if body.get("messaging_product") != "whatsapp":
        raise GraphError(400, 100, "The parameter messaging_product is required.")
    to, kind = body.get("to") or body.get("recipient"), str(body.get("type", "text"))
    if not isinstance(to, str) or not to:
        raise GraphError(400, 131008, _TITLES[131008], "to or recipient is required")
    _CHECKS.get(kind, _unknown)(_object(kind, body.get(kind)))
    return to.lstrip("+"), kind


def read_receipt(body: Json) -> tuple[str, bool]:
    """Which message was read, and whether an answer is being written.

    Raises:
        GraphError: Meta would refuse it.
    """
    wamid, typing = body.get("message_id"), body.get("typing_indicator")
    if body.get("messaging_product") != "whatsapp":
        raise GraphError(400, 100, "The parameter messaging_product is required.")
    if not isinstance(wamid, str) or not wamid:
        raise GraphError(400, 131008, _TITLES[131008], "message_id is required")
    if typing is not None and _object("typing_indicator", typing).get("type") != "text":
        raise GraphError(400, 131009, _TITLES[131009], "typing_indicator.type must be text")
    return wamid, typing is not None


def _object(field: str, value: Any) -> Json:
    if not isinstance(value, dict):
        raise GraphError(400, 131008, _TITLES[131008], f"{field} is required")
    return value  # pyright: ignore[reportUnknownVariableType]  (JSON)


def _list(field: str, value: Any, limit: int) -> list[Json]:
    if not isinstance(value, list) or not 1 <= len(value) <= limit:  # pyright: ignore[reportUnknownArgumentType]  (JSON)
        raise GraphError(400, 131009, _TITLES[131009], f"1 to {limit} {field} are possible")
    return [_object(field, v) for v in value]  # pyright: ignore[reportUnknownVariableType]  (JSON)


def _unknown(_content: Json) -> None:
    raise GraphError(400, 131051, "Unsupported message type")


def _text(content: Json) -> None:
    _within("text.body", content.get("body"), _TEXT)


def _file(content: Json) -> None:
    if ("id" in content) == ("link" in content):
        raise GraphError(400, 131009, _TITLES[131009], "a file needs id or link, one of both")


def _plain(content: Json) -> None:
    _file(content)
    if "caption" in content:
        raise GraphError(400, 131009, _TITLES[131009], "audio and sticker have no caption")


def _interactive(content: Json) -> None:
    action, body = _object("interactive.action", content.get("action")), _object("interactive.body", content.get("body"))
    if content.get("type") == "button":
        _within("interactive.body.text", body.get("text"), _BODY)
        replies = [_object("button.reply", b.get("reply")) for b in _list("buttons", action.get("buttons"), 3)]
        _titled("button", replies, 20)
    elif content.get("type") == "list":
        _within("interactive.body.text", body.get("text"), _TEXT)
        _within("action.button", action.get("button"), 20)
        rows = [r for s in _list("sections", action.get("sections"), 10) for r in _list("rows", s.get("rows"), 10)]
        _titled("row", _list("rows", rows, 10), 24)
    elif content.get("type") == "flow":
        _within("interactive.body.text", body.get("text"), _BODY)
        _flow(_object("action.parameters", action.get("parameters")))
    else:
        raise GraphError(400, 131009, _TITLES[131009], "interactive.type must be button, list or flow")


def _flow(parameters: Json) -> None:
    _within("flow_cta", parameters.get("flow_cta"), 30)
    if ("flow_id" in parameters) == ("flow_name" in parameters) or parameters.get("flow_message_version") != "3":
        raise GraphError(400, 131009, _TITLES[131009], "a flow needs flow_message_version 3, and flow_id or flow_name, one of both")


def _titled(what: str, choices: list[Json], limit: int) -> None:
    for choice in choices:
        _within(f"{what}.title", choice.get("title"), limit)
    if len({str(c.get("id")) for c in choices}) != len(choices):
        raise GraphError(400, 131009, _TITLES[131009], f"Duplicated {what} ids")


def _within(field: str, value: object, limit: int) -> None:
    if not isinstance(value, str) or not value:
        raise GraphError(400, 131008, _TITLES[131008], f"{field} is required")
    if len(value) > limit:
        raise GraphError(400, 131009, _TITLES[131009], f"{field} has {len(value)} characters; {limit} are the limit")


_CHECKS: Final = {
    "text": _text,
    "image": _file,
    "video": _file,
    "document": _file,
    "audio": _plain,
    "sticker": _plain,
    "interactive": _interactive,
}
