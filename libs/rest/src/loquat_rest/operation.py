"""An operation: method, path, shapes and scope, the same for the service that serves it and for the gateway that documents it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel, Field

JSON: Final = "application/json"
KEYED: Final = ("Idempotency-Key",)
"""Headers of an operation that may be asked for again: 1 to 200 characters, the same for the same order."""
AUDITED: Final = "Loquat-Audited"
"""Header of an inner answer: what an operation of a reading scope changed, for the audit record. It goes no further."""
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


class OneProject(BaseModel):
    """A project in the path."""

    project_id: str = Field(max_length=80)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation below a project.

    `path` begins behind the project, such as `/database/tables/{table}`. `body` is a model; or the body is a stream of one of the media types
    in `takes`. `answer` is a model (None: 204); or the answer is a stream of one of the media types in `gives`. `headers` of the request go on
    besides those that every request has. `seconds`: how long an answer may take, a stream's first byte.
    """

    method: Method
    path: str
    summary: str
    scope: str
    at: type[BaseModel] = OneProject
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    status: int = 200
    errors: tuple[int, ...] = (404, 409)
    takes: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    seconds: float = 30.0
    ready: bool = True

    @property
    def streams(self) -> bool:
        """Whether a body or an answer has no bound but the project's own limits."""
        return bool({*self.takes, *self.gives} - {JSON})
