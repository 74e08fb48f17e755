"""Shapes of the bot API: versions, deployments, canaries, states."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from loquat_rest.operation import OneProject, Operation

VERSION: Final = "^[0-9a-f]{64}$"
VersionId = Annotated[str, StringConstraints(pattern=VERSION)]
Message = Annotated[str, StringConstraints(max_length=500)]
MOST_TESTERS: Final = 50
"""Test contacts of a project: they travel with every word of what is deployed."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SaveVersion(_Strict):
    """A bot's files by path; without any, the draft is saved. The last 500 versions are kept, and all to which a deployment, a test contact or the draft refers."""

    files: dict[str, str] | None = Field(default=None, min_length=1)
    message: Message = Field(default="", description="what changed, for the history")
    parent: VersionId | None = Field(default=None, description="the version that was changed; the one that was saved last, unless given")


class Version(BaseModel):
    """Immutable, named by its content: sha-256 of the files, in hex."""

    version: str
    parent: str | None
    author: str = Field(description="the key that saved it first, or the service that did")
    message: str
    created_at: AwareDatetime
    saved_at: AwareDatetime = Field(description="when the same content was saved last")
    file_count: int | None
    bytes: int | None
    states: list[str] | None = Field(description="that it declares; null until it was loaded once")
    deployed: Literal["all", "canary"] | None = Field(description="whom it answers now; null: saved, not deployed")


class SavedVersion(Version):
    """The version; `created` is false where the same content was there before, which stays as it was."""

    created: bool


class VersionDetail(Version):
    """With the files."""

    files: dict[str, str]


class VersionPage(BaseModel):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[Version]
    next_cursor: str | None


class VersionsQuery(BaseModel):
    """A page."""

    cursor: VersionId | None = Field(default=None, description="`next_cursor` of the page before")
    limit: int = Field(default=50, ge=1, le=200)


class OneVersion(OneProject):
    """A version in the path."""

    version: VersionId


class DiffQuery(BaseModel):
    """Against what."""

    against: VersionId | None = Field(default=None, description="the older side; the version's parent unless given")


class FileChange(BaseModel):
    """One file that differs."""

    path: str
    status: Literal["added", "removed", "changed"]
    diff: str | None = Field(description="unified; null where the file is too long to be compared line by line")
    added: int
    removed: int


class Diff(BaseModel):
    """What differs between two versions."""

    version: str
    against: str | None = Field(description="null: against nothing")
    items: list[FileChange]


class Deploy(BaseModel):
    """Files to save and deploy, or a version that was saved, or the draft: one of the three. A paused bot stays paused: the answer says so."""

    files: dict[str, str] | None = None
    version: VersionId | None = None
    draft: bool = Field(default=False, description="save the draft and deploy it")
    message: Message = ""
    force: bool = Field(default=False, description="deploy whatever speaks against it, other than files that are none of a bot's")
    canary: int | None = Field(
        default=None,
        ge=1,
        le=99,
        description="per cent of the contacts, by a hash of each, in conversations that open from now on; the others stay with what is deployed",
    )
    open: bool = Field(default=False, description="the canary also takes conversations that are open already, from their next message on")

    @model_validator(mode="after")
    def _one_of_three(self) -> Deploy:
        if sum((self.files is not None, self.version is not None, self.draft)) != 1:
            raise ValueError("give files, a version or draft: true, one of the three")
        if self.open and self.canary is None:
            raise ValueError("open belongs to a canary: give canary, too")
        return self


class Why(BaseModel):
    """What a step is noted with."""

    message: Message = ""


class Promote(Why):
    """The canary for everybody."""

    force: bool = Field(default=False, description="whatever speaks against it")


class CanaryStep(BaseModel):
    """From `since` on, so many per cent."""

    percent: int
    since: AwareDatetime


class Canary(BaseModel):
    """A version that some contacts are answered by."""

    version: str
    percent: int
    open: bool
    steps: list[CanaryStep]


class Deployment(BaseModel):
    """Where a project's pointer was put, by whom and why."""

    id: UUID
    version: str = Field(description="that answers everybody but the canary's contacts and test contacts")
    deployed_by: str
    message: str
    deployed_at: AwareDatetime
    kind: Literal["deploy", "canary", "promote", "stop", "rollback", "testers", "pause", "resume"]
    forced: list[str] = Field(description="codes of what spoke against it and was overruled")
    canary: Canary | None
    testers: dict[str, str]
    paused: bool = Field(description="nobody is answered by any of it: what comes is recorded as held, and not answered afterwards")


class DeploymentPage(BaseModel):
    """Newest first, the last 1,000 and those to which they lead back; `next_cursor` is null on the last page."""

    items: list[Deployment]
    next_cursor: str | None


class DeploymentsQuery(BaseModel):
    """A page."""

    cursor: UUID | None = Field(default=None, description="`next_cursor` of the page before")
    limit: int = Field(default=50, ge=1, le=200)


class Tally(BaseModel):
    """Events that a version was asked to handle since the canary began, and those on which it failed at least once."""

    version: str
    events: int
    failed: int


class Comparison(BaseModel):
    """How the canary does."""

    canary: Tally
    stable: Tally


class BotStatus(BaseModel):
    """What is deployed, and whether something newer is saved."""

    deployment: Deployment | None
    paused: bool = Field(description="whatever is deployed answers nobody until the bot is resumed")
    newest_version: str | None
    saved_not_deployed: bool = Field(description="the version that was saved last answers nobody")
    comparison: Comparison | None = Field(description="null without a canary")


class Testers(_Strict):
    """Test contacts: each is answered by a version of its own, or by whatever the draft holds (`draft`). The list replaces the one before."""

    testers: dict[UUID, Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64}|draft)$")]] = Field(max_length=MOST_TESTERS)
    message: Message = ""


class State(BaseModel):
    """A state of conversations."""

    state: str
    declared: bool = Field(description="by the deployed version, or the state in which every conversation opens")
    conversations: int = Field(description="open ones that are in it")


class States(BaseModel):
    """Declared and in use. `unknown`: those that conversations are in and the deployed version does not declare."""

    version: str | None
    items: list[State]
    unknown: list[str]


def _below(method: Any, path: str, summary: str, scope: str, **more: Any) -> Operation:
    return Operation(method, f"/bot{path}", summary, scope, **more)


_REFUSING: Final = (404, 409, 422, 429, 503)
SAVE: Final = _below("POST", "/versions", "Save a version", "bots:write", body=SaveVersion, answer=SavedVersion, status=201)
VERSIONS: Final = _below(
    "GET", "/versions", "List versions", "bots:read", query=VersionsQuery, answer=VersionPage, errors=(404,), ready=False
)
ONE_VERSION: Final = _below(
    "GET", "/versions/{version}", "A version with its files", "bots:read", at=OneVersion, answer=VersionDetail, errors=(404,), ready=False
)
DIFF: Final = _below(
    "GET",
    "/versions/{version}/diff",
    "What differs between two versions",
    "bots:read",
    at=OneVersion,
    query=DiffQuery,
    answer=Diff,
    errors=(404,),
    ready=False,
)
DEPLOY: Final = _below(
    "POST", "/deployments", "Deploy a bot", "bots:write", body=Deploy, answer=Deployment, status=201, errors=_REFUSING, seconds=60
)
DEPLOYMENTS: Final = _below(
    "GET", "/deployments", "List deployments", "bots:read", query=DeploymentsQuery, answer=DeploymentPage, errors=(404,), ready=False
)
ROLLBACK: Final = _below(
    "POST",
    "/rollback",
    "Go back to what was deployed before, at once",
    "bots:write",
    body=Why,
    answer=Deployment,
    status=201,
    errors=_REFUSING,
)
PROMOTE: Final = _below(
    "POST",
    "/canary/promote",
    "The canary for everybody",
    "bots:write",
    body=Promote,
    answer=Deployment,
    status=201,
    errors=_REFUSING,
    seconds=60,
)
STOP: Final = _below(
    "POST", "/canary/stop", "The canary for nobody", "bots:write", body=Why, answer=Deployment, status=201, errors=_REFUSING
)
PAUSE: Final = _below(
    "POST",
    "/pause",
    "Answer nobody: what comes is recorded as held",
    "bots:write",
    body=Why,
    answer=Deployment,
    status=201,
    errors=_REFUSING,
)
RESUME: Final = _below(
    "POST",
    "/resume",
    "Answer again whoever writes from now on",
    "bots:write",
    body=Why,
    answer=Deployment,
    status=201,
    errors=_REFUSING,
)
TESTERS: Final = _below("PUT", "/testers", "Versions for test contacts", "bots:write", body=Testers, answer=Deployment, errors=_REFUSING)
STATUS: Final = _below("GET", "", "What is deployed", "bots:read", answer=BotStatus, errors=(404,), ready=False)
STATES: Final = _below("GET", "/states", "States, declared and in use", "bots:read", answer=States, errors=(404, 409, 503), seconds=60)
OPERATIONS: Final[tuple[Operation, ...]] = (
    STATUS,
    SAVE,
    VERSIONS,
    ONE_VERSION,
    DIFF,
    DEPLOY,
    DEPLOYMENTS,
    ROLLBACK,
    PROMOTE,
    STOP,
    PAUSE,
    RESUME,
    TESTERS,
    STATES,
)
