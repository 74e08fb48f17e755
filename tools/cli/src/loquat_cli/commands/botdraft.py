"""`loquat bot push` and `pull`: a folder here and the draft of a project."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from loquat_cli.botapi import BotApi, Message, Project
from loquat_cli.commands.bot import read_bot
from loquat_cli.errors import Trouble
from loquat_cli.rest import Refused
from loquat_cli.show import console, plain

_KEPT: Final = ".loquat-draft.json"
"""In the bot's folder: which draft its files are from. What begins with a dot is never sent."""


class Conflict(Trouble):
    """Somebody else's work, or one's own, would be lost."""


class Pulled(BaseModel):
    """What the folder had in common with a project's draft last: the draft's etag, and the digest of each file."""

    project: str
    etag: str
    files: dict[str, str]


async def push_bot(
    folder: Path = Path(), /, *, project: Project = None, force: bool = False, save: bool = False, message: Message = ""
) -> None:
    """Put a folder's files into the project's draft, where the editor shows them. Nothing is deployed.

    Refused when somebody changed the draft since this folder last pulled or pushed.

    Parameters
    ----------
    folder
        With bot.py in it.
    project
        Id or name of the project; the demo project unless named.
    force
        Overwrite what others changed in the draft.
    save
        Save the draft as a version as well.
    message
        With --save: what changed.
    """
    files = read_bot(folder)
    async with BotApi.of(project) as api:
        draft = await replace_draft(api, folder, files, force=force)
        saved = await api.post("/versions", {"message": message}) if save else None
    changed = "" if draft["changed"] or saved else "; it is what was saved last"
    those = f"these {len(files)} files" if len(files) > 1 else "this one file"
    console().print(f"the draft of {plain(api.project)} holds {those}{changed}")
    if saved is not None:
        console().print(f"saved as version {plain(saved['version'][:12])}; `{plain(api.command('deploy --draft'))}` deploys it")


async def replace_draft(api: BotApi, folder: Path, files: Mapping[str, str], *, force: bool) -> Any:
    """Makes the draft these files of a folder, all at once; of those that are as they were nothing is written.

    Raises:
        Conflict: somebody changed the draft since this folder last pulled or pushed.
    """
    known = _known(folder, api.project)
    etag = (await api.get("/files"))["etag"] if force else known.etag if known is not None else None
    try:
        draft = await api.put("/files", {"files": files}, {"If-Match": f'"{etag}"'} if etag is not None else None)
    except Refused as refused:
        if refused.code != "draft_changed":
            raise
        raise Conflict(
            f"the draft was changed by somebody else. Get it with `{api.command('pull')}`, or overwrite it with --force"
        ) from None
    _keep(folder, api.project, draft["etag"], files)
    return draft


async def pull_bot(folder: Path = Path(), /, *, project: Project = None, force: bool = False) -> None:
    """Get the project's draft into a folder: files that are new or changed there, and none that you changed here.

    Parameters
    ----------
    folder
        Where; it is made if it is not there.
    project
        Id or name of the project; the demo project unless named.
    force
        Overwrite what you changed here.
    """
    async with BotApi.of(project) as api:
        draft = await api.get("/files", {"contents": "true"})
    files: dict[str, str] = {path: content for path, content in draft["contents"].items() if _harmless(folder, path)}
    known = _known(folder, api.project)
    before: Mapping[str, str] = known.files if known is not None else {}
    mine = [path for path in sorted({*files, *before}) if _changed_here(folder, path, files.get(path), before.get(path))]
    if mine and not force:
        listed = "\n  ".join(mine[:20])
        raise Conflict(f"you changed here what the draft has otherwise; --force overwrites it:\n  {listed}")
    gone = [path for path in before if path not in files and _harmless(folder, path)]
    _write(folder, files, gone)
    _keep(folder, api.project, draft["etag"], files)
    removed = f", {len(gone)} removed" if gone else ""
    console().print(f"{plain(folder)} holds the draft of {plain(api.project)} ({len(files)} files{removed})")
    for path in sorted(draft["contents"].keys() - files.keys()):
        console(stderr=True).print(f"[yellow]{plain(path)} was left out: it is hidden, or would leave the folder[/]")


def _write(folder: Path, files: Mapping[str, str], gone: Iterable[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, newline="")
    for path in gone:
        (folder / path).unlink(missing_ok=True)


def _harmless(folder: Path, path: str) -> bool:
    """Others write drafts: nothing of theirs becomes a hidden file (`.git/hooks`, say) or leaves the folder, through a link neither."""
    parts = PurePosixPath(path).parts
    if not parts or PurePosixPath(path).is_absolute() or any(part.startswith(".") or "\\" in part for part in parts):
        return False
    return (folder / path).resolve().is_relative_to(folder.resolve())


def _changed_here(folder: Path, path: str, theirs: str | None, before: str | None) -> bool:
    """Whether a file here would be lost: it is neither what it was then nor what it will be."""
    here = folder / path
    if not _harmless(folder, path) or not here.is_file():
        return False
    digest = hashlib.sha256(here.read_bytes()).hexdigest()
    return digest != before and (theirs is None or digest != _digest(theirs))


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _known(folder: Path, project: str) -> Pulled | None:
    try:
        found = Pulled.model_validate_json((folder / _KEPT).read_bytes())
    except (OSError, ValidationError):
        return None
    return found if found.project == project else None


def _keep(folder: Path, project: str, etag: str, files: Mapping[str, str]) -> None:
    kept: dict[str, Any] = {"project": project, "etag": etag, "files": {path: _digest(content) for path, content in files.items()}}
    (folder / _KEPT).write_text(json.dumps(kept, indent=1) + "\n")
