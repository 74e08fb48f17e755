"""The envelope: CloudEvents 1.0 in structured mode. The whole event is one JSON document, the same bytes on every engine."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SerializeAsAny, StringConstraints
from pydantic_core import to_json

ProjectKey = Annotated[str, StringConstraints(min_length=1, max_length=80)]
LaneKey = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Shape(BaseModel):
    """A frozen wire shape. Readers ignore fields they do not know; producers' tests validate with `extra="forbid"`."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Payload(Shape):
    """The data of an event. `TYPE` is the type string on the wire; it carries the major version."""

    TYPE: ClassVar[str]


D = TypeVar("D", bound=Payload)


class Event(Shape, Generic[D]):
    """One event or command.

    `projectid` decides the partition, `lane` (within the project) the order. For events of no project yet, `projectid` is a word
    that names the stream, such as `unrouted`.
    """

    specversion: Literal["1.0"] = "1.0"
    id: UUID
    type: str
    source: str = Field(description="the service that says so, such as /gateway")
    time: AwareDatetime
    subject: str | None = None
    datacontenttype: Literal["application/json"] = "application/json"
    projectid: ProjectKey
    lane: LaneKey = Field(description="serial queue within the project; an extension attribute of CloudEvents")
    traceparent: str | None = None
    data: SerializeAsAny[D]

    @classmethod
    def of(
        cls,
        data: D,
        *,
        id: UUID,
        source: str,
        time: datetime,
        project: str,
        lane: str,
        subject: str | None = None,
        traceparent: str | None = None,
    ) -> Event[D]:
        """Wraps `data`. The id is the caller's: it must be the same for the same fact (`ids.py`)."""
        return cls(
            id=id,
            type=data.TYPE,
            source=source,
            time=time,
            subject=subject,
            projectid=project,
            lane=lane,
            traceparent=traceparent,
            data=data,
        )

    def to_json(self) -> bytes:
        """The bytes that go onto the bus."""
        return to_json(self, exclude_none=True)


AnyEvent = Event[Payload]
