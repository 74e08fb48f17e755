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
    to = body.get("to") or body.get("recipient")
    if not isinstance(to, str) or not to:
        raise GraphError(400, 131008, _TITLES[131008], "to or recipient is required")
    kind = body.get("type", "text")
    content = body.get(kind) if isinstance(kind, str) else None
    if not isinstance(content, dict):
        raise GraphError(400, 131008, _TITLES[131008], f"{kind} is required")
    _CHECKS.get(str(kind), _unknown)(content)  # pyright: ignore[reportUnknownArgumentType]  (JSON)
    return to.lstrip("+"), str(kind)


def _unknown(_content: Json) -> None:
    raise GraphError(400, 131051, "Unsupported message type")


def _text(content: Json) -> None:
    _within("text.body", content.get("body"), _TEXT)


def _image(content: Json) -> None:
    if ("id" in content) == ("link" in content):
        raise GraphError(400, 131009, _TITLES[131009], "image needs id or link, one of both")


def _interactive(content: Json) -> None:
    action = content.get("action")
    body = content.get("body")
    if not isinstance(action, dict) or not isinstance(body, dict):
        raise GraphError(400, 131008, _TITLES[131008], "interactive.action and interactive.body are required")
    if content.get("type") == "button":
        _within("interactive.body.text", body.get("text"), _BODY)  # pyright: ignore[reportUnknownMemberType]  (JSON)
        buttons: Any = action.get("buttons")  # pyright: ignore[reportUnknownMemberType]  (JSON)
        _count("buttons", buttons, 3)
        for button in buttons:
            _within("button.title", button.get("reply", {}).get("title"), 20)
        _distinct([b["reply"].get("id") for b in buttons])
    elif content.get("type") == "list":
        _within("interactive.body.text", body.get("text"), _TEXT)  # pyright: ignore[reportUnknownMemberType]  (JSON)
        _within("action.button", action.get("button"), 20)  # pyright: ignore[reportUnknownMemberType]  (JSON)
        sections: Any = action.get("sections")  # pyright: ignore[reportUnknownMemberType]  (JSON)
        _count("sections", sections, 10)
        rows = [r for s in sections for r in s.get("rows", [])]
        _count("rows", rows, 10)
        for row in rows:
            _within("row.title", row.get("title"), 24)
        _distinct([r.get("id") for r in rows])
    else:
        raise GraphError(400, 131009, _TITLES[131009], "interactive.type must be button or list")


def _within(field: str, value: object, limit: int) -> None:
    if not isinstance(value, str) or not value:
        raise GraphError(400, 131008, _TITLES[131008], f"{field} is required")
    if len(value) > limit:
        raise GraphError(400, 131009, _TITLES[131009], f"{field} has {len(value)} characters; {limit} are the limit")


def _count(field: str, value: object, limit: int) -> None:
    if not isinstance(value, list) or not 1 <= len(value) <= limit:  # pyright: ignore[reportUnknownArgumentType]  (JSON)
        raise GraphError(400, 131009, _TITLES[131009], f"1 to {limit} {field} are possible")


def _distinct(ids: list[object]) -> None:
    if len(set(map(str, ids))) != len(ids):
        raise GraphError(400, 131009, _TITLES[131009], "Duplicated ids")


_CHECKS: Final = {"text": _text, "image": _image, "interactive": _interactive}
