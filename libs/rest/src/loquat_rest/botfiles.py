"""Shapes of the bot API: the files of the draft, for an editor."""

from __future__ import annotations

from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from loquat_rest.operation import OneProject, Operation

LARGEST: Final = 1 << 20
"""Bytes of all files of a bot together."""


class OneFile(OneProject):
    """A file in the path, its slashes written %2F."""

    file: str = Field(max_length=200)


class FilesQuery(BaseModel):
    """What besides the list."""

    search: str | None = Field(
        default=None, min_length=1, max_length=200, description="lines and paths that have these words, whatever the case"
    )
    contents: bool = Field(default=False, description="with all contents")


class FileEntry(BaseModel):
    """A file. `etag` is the sha-256 of its content, in hex."""

    path: str
    etag: str
    bytes: int
    author: str
    updated_at: AwareDatetime


class FileContent(FileEntry):
    """With its content."""

    content: str


class Match(BaseModel):
    """A line that has the words; 0: the path has."""

    path: str
    line: int
    text: str


class Files(BaseModel):
    """The draft; while nobody has changed anything, the version that was saved last."""

    etag: str = Field(description="of all files: the version that they would be")
    base: str | None = Field(description="the version that the draft began with, or was last saved as")
    changed: bool = Field(description="there is something to save")
    items: list[FileEntry]
    contents: dict[str, str] | None = Field(default=None, description="by path, where they were asked for")
    matches: list[Match] | None = Field(default=None, description="the first 200, where something was looked for")


class WriteFile(BaseModel):
    """A whole file. `If-Match` names the etag of the content that was seen, `If-None-Match: *` says that there was none; without both it must be new.

    `If-Match: *` overwrites whatever is there. 412 `file_changed` has both sides: `current` and `given`.
    """

    model_config = ConfigDict(extra="forbid")

    content: str = Field(max_length=LARGEST)


class ReplaceFiles(BaseModel):
    """All files of the draft. `If-Match` names the draft's etag; without it, nothing that is not saved may be lost (412 `draft_changed`).

    `If-Match: *` replaces whatever is there.
    """

    model_config = ConfigDict(extra="forbid")

    files: dict[str, str]


_ERRORS: Final = (404, 409, 412, 422, 428)
LIST: Final = Operation("GET", "/bot/files", "The files of the draft", "bots:read", query=FilesQuery, answer=Files, errors=(404,))
REPLACE: Final = Operation(
    "PUT",
    "/bot/files",
    "Replace all files of the draft",
    "bots:write",
    body=ReplaceFiles,
    answer=Files,
    errors=_ERRORS,
    headers=("If-Match",),
)
DISCARD: Final = Operation("DELETE", "/bot/files", "Discard the draft: back to the version that was saved last", "bots:write")
READ: Final = Operation("GET", "/bot/files/{file}", "A file of the draft", "bots:read", OneFile, answer=FileContent, errors=(404,))
WRITE: Final = Operation(
    "PUT",
    "/bot/files/{file}",
    "Write a file of the draft",
    "bots:write",
    OneFile,
    body=WriteFile,
    answer=FileContent,
    errors=_ERRORS,
    headers=("If-Match", "If-None-Match"),
)
REMOVE: Final = Operation(
    "DELETE",
    "/bot/files/{file}",
    "Remove a file of the draft, the content of which `If-Match` names",
    "bots:write",
    OneFile,
    errors=_ERRORS,
    headers=("If-Match",),
)
OPERATIONS: Final[tuple[Operation, ...]] = (LIST, REPLACE, DISCARD, READ, WRITE, REMOVE)
