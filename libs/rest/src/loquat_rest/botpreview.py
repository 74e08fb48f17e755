"""Shapes of the bot API: a version or the draft tried out with a simulated contact."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from loquat_rest.bots import VersionId
from loquat_rest.operation import OneProject, Operation

PREVIEW: Final = "^(clone|live)_[0-9a-f]{32}$"
PreviewId = Annotated[str, StringConstraints(pattern=PREVIEW)]
Database = Literal["clone", "live"]
_ATTRIBUTES: Final = 100  # of a simulated contact


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Place(_Strict):
    """A place."""

    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)
    name: str | None = Field(default=None, max_length=1000)
    address: str | None = Field(default=None, max_length=1000)


class Said(_Strict):
    """What the contact does: a text, a tap on a button, a row that is picked, a place; or a message of any type, with `content` as WhatsApp writes it."""

    text: str | None = Field(default=None, min_length=1, max_length=4096)
    button: str | None = Field(default=None, min_length=1, max_length=256, description="id of a button")
    row: str | None = Field(default=None, min_length=1, max_length=200, description="id of a list's row")
    title: str | None = Field(default=None, min_length=1, max_length=100, description="of the button or the row; the id, unless given")
    location: Place | None = None
    type: Annotated[str, StringConstraints(pattern="^[a-z_]{1,40}$")] | None = None
    content: dict[str, Any] | None = Field(default=None, description="the part of the message that is named after its type")
    reply_to: str | None = Field(default=None, max_length=200, description="id of the message that this one answers")

    @model_validator(mode="after")
    def _one(self) -> Self:
        """`type` may come with a text, its caption."""
        given = [n for n in ("button", "row", "location", "type") if getattr(self, n) is not None]
        if not given and self.text is not None:
            given = ["text"]
        if len(given) != 1 or (self.text is not None and given[0] not in {"text", "type"}):
            raise ValueError("message: exactly one of text, button, row, location and type is given; a type may have a text")
        if (self.title is not None and given[0] not in {"button", "row"}) or (self.content is not None and given != ["type"]):
            raise ValueError("message: a title is for a button or a row, content for a type")
        return self


class SimulatedContact(_Strict):
    """Who writes. Given again with a later message, it is changed."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)] | None = None
    language: Annotated[str, StringConstraints(pattern="^[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8}){0,3}$")] | None = None
    attributes: dict[str, Any] | None = Field(default=None, max_length=_ATTRIBUTES, description="null takes one away")


class Preview(_Strict):
    """What is tried: a version, or the draft as it is now; without either, the version that is deployed."""

    version: VersionId | None = None
    draft: bool = False
    database: Database | None = Field(
        default=None,
        description="clone: a throw-away copy of the project's database, for which connections at rest are closed once; live: the database itself, in which all that the bot does is true"
        " and stays. Default: where preview_id is, else a clone",
    )
    preview_id: PreviewId | None = Field(
        default=None, description="of an answer before: the same database, the same contact, and the conversation goes on"
    )
    contact: SimulatedContact | None = None
    message: Said

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.draft and self.version is not None:
            raise ValueError("draft: a version and the draft cannot both be tried")
        if self.preview_id is not None and self.database not in {None, self.preview_id.partition("_")[0]}:
            raise ValueError("database: preview_id is of the other one")
        return self


class PreviewReply(BaseModel):
    """A message that the contact would have got."""

    type: str
    text: str | None
    content: dict[str, Any] | None


class PreviewTimer(BaseModel):
    """A timer that was set; `due_at` null: one that was called off. In a preview none fires."""

    name: str
    due_at: AwareDatetime | None


class PreviewLine(BaseModel):
    """A line of the log, or of what the bot printed."""

    level: str
    line: str


class Previewed(BaseModel):
    """What came of it. Nothing of it was sent, and nothing told to anybody; secrets that the bot said are blotted out."""

    preview_id: str
    database: Database = Field(description="what the bot worked with: clone, a throw-away copy; live, the project's own database")
    version: str
    contact_id: str | None = Field(description="of the simulated contact in that database")
    conversation_id: str | None
    outcome: str = Field(description="handled; held: people hold the conversation; else why the bot failed")
    replies: list[PreviewReply]
    state_before: str | None
    state: str | None
    ended: bool = Field(description="whether the bot has closed the conversation; the next message opens another one")
    holder: str | None = Field(description="who holds the conversation now")
    needs_attention: bool
    noted: dict[str, Any] | None = Field(description="what the bot noted of the contact")
    timers: list[PreviewTimer]
    touched: dict[str, int] = Field(description="rows of the project's own tables that the handler's transaction changed, by table")
    duration_ms: float | None = Field(description="of the handler")
    queries: int | None
    log: list[PreviewLine]
    error: str | None
    trace: str | None = Field(description="with the bot's own frames only")
    expires_at: AwareDatetime | None = Field(description="when a clone goes unless it is used again")


class OnePreview(OneProject):
    """A preview in the path."""

    preview_id: PreviewId


TRY: Final = Operation(
    "POST",
    "/bot/preview",
    "Try a bot out with a simulated contact",
    "bots:write",
    body=Preview,
    answer=Previewed,
    errors=(404, 409, 422, 429, 503, 504),
    seconds=110,
)
DROP: Final = Operation(
    "DELETE", "/bot/preview/{preview_id}", "Throw a preview's clone away", "bots:write", at=OnePreview, errors=(404, 409, 503)
)
OPERATIONS: Final[tuple[Operation, ...]] = (TRY, DROP)
