"""Errors for callers: problem+json (RFC 9457), with a stable `code` that programs may rely on."""

from __future__ import annotations

import json
from typing import Any, Final

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

CONTENT_TYPE: Final = "application/problem+json"
_SHOWN: Final = 20  # errors of one request that are listed; a body with more is wrong as a whole


class FieldError(BaseModel):
    """One field that is not as it should be."""

    field: str = Field(description="where, such as body.name or query.limit")
    message: str


class ProblemDocument(BaseModel):
    """What is wrong, for people (`title`, `detail`) and for programs (`code`)."""

    model_config = ConfigDict(extra="allow")

    status: int
    code: str
    title: str
    detail: str | None = None
    errors: list[FieldError] | None = None


class Problem(Exception):
    """Raised by a handler; becomes the answer. `extra` members stand beside the standard ones."""

    def __init__(self, status: int, code: str, title: str, detail: str | None = None, **extra: Any) -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code, self.title, self.detail, self.extra = status, code, title, detail, extra

    def body(self) -> bytes:
        """The document."""
        document = {
            "status": self.status,
            "code": self.code,
            "title": self.title,
            **({"detail": self.detail} if self.detail else {}),
            **self.extra,
        }
        return orjson.dumps({k: orjson.Fragment(_written(v)) for k, v in document.items()})

    def response(self) -> web.Response:
        """The answer."""
        again = (
            self.status == web.HTTPServiceUnavailable.status_code and self.code != "outcome_unknown"
        )  # which a second try might do twice
        headers = {"Retry-After": "1"} if again else None
        if self.status == web.HTTPUnauthorized.status_code:
            headers = {"WWW-Authenticate": "Bearer"}
        return web.Response(status=self.status, body=self.body(), content_type=CONTENT_TYPE, headers=headers)


def _written(value: Any) -> bytes:
    """JSON of whatever a caller gave or a row has, so that a problem can always be told."""
    try:
        return orjson.dumps(value, default=str)
    except TypeError:  # a whole number beyond 64 bits, half a character, too deep
        pass
    try:
        return json.dumps(value, default=str).encode()
    except (TypeError, ValueError, RecursionError):
        return b"null"


def invalid(field: str, message: str) -> Problem:
    """A request whose shape is right and whose `field` (such as body.name) is not."""
    return Problem(422, "invalid_request", "The request is not valid", f"{field}: {message}", errors=[{"field": field, "message": message}])


def not_found(what: str) -> Problem:
    """It is not there, or the caller may not know that it is."""
    return Problem(404, "not_found", f"There is no such {what}")


def of_validation(part: str, error: ValidationError) -> Problem:
    """A 400 for text that is not JSON, a 422 that names each field and its limit otherwise. Values are not repeated: they may be secret."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if any(e["type"] == "json_invalid" for e in found):
        return Problem(400, "malformed_json", "The body is not valid JSON", found[0]["msg"])
    errors = [{"field": ".".join((part, *map(str, e["loc"]))), "message": e["msg"]} for e in found]
    more = {} if len(errors) <= _SHOWN else {"more_errors": len(errors) - _SHOWN}
    return Problem(
        422, "invalid_request", "The request is not valid", f"{errors[0]['field']}: {errors[0]['message']}", errors=errors[:_SHOWN], **more
    )
