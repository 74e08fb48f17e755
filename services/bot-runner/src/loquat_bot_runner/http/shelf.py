"""Saving a version: from files that came along, or from the draft."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from loquat_common.problems import Problem

from loquat_bot_runner.adapters.aside import Aside
from loquat_bot_runner.adapters.drafts import Drafts
from loquat_bot_runner.adapters.versions import Versions
from loquat_bot_runner.domain.bundle import BundleRefused
from loquat_bot_runner.domain.difference import FileChange
from loquat_bot_runner.errors import ProjectDatabaseAway


class Shelf:
    """What is on it has been checked."""

    def __init__(self, versions: Versions, drafts: Drafts, aside: Aside) -> None:
        self._versions, self._drafts, self._aside = versions, drafts, aside

    async def save(
        self, project: str, files: Mapping[str, str], *, author: str, message: str, parent: str | None = None
    ) -> tuple[str, bool]:
        """The version, and whether it is new.

        Raises:
            Problem: 422 `bot_refused`, with every flaw that was found.
        """
        version = await self._checked(files)
        created = await self._versions.save(project, version, files, author=author, message=message, parent=parent)
        return version, created

    async def save_draft(self, project: str, *, author: str, message: str) -> tuple[str, bool]:
        """The same for what the draft holds.

        Raises:
            Problem: 409 without any file, 422 `bot_refused`.
        """
        draft = await self._drafts.read(project)
        if not draft.items:
            raise Problem(409, "no_draft", "There is nothing to save", "Write a file first, or give files")
        version, created = await self.save(project, draft.files, author=author, message=message, parent=draft.base)
        if draft.begun:
            await self._drafts.saved(project, version)
        return version, created

    async def difference(self, old: Mapping[str, str], new: Mapping[str, str]) -> list[FileChange]:
        """What differs between two versions.

        Raises:
            Problem: 422 when they cannot be compared within limits.
        """
        try:
            found = await self._aside.difference(old, new)
        except ProjectDatabaseAway:
            raise _busy() from None
        if found is None:
            raise Problem(422, "too_complex", "The versions cannot be compared within limits", "Compare them on a machine of your own")
        return found

    async def _checked(self, files: Mapping[str, str]) -> str:
        try:
            return await self._aside.checked(files)
        except ProjectDatabaseAway:
            raise _busy() from None
        except BundleRefused as refused:
            raise Problem(
                422,
                "bot_refused",
                "The bot cannot be deployed",
                refused.reason,
                file=refused.file,
                line=refused.line,
                advice=refused.flaws[0].advice,
                flaws=[{k: v for k, v in asdict(flaw).items() if v is not None} for flaw in refused.flaws],
            ) from None


def _busy() -> Problem:
    return Problem(503, "busy", "Too many bots are being read at once", "Try again in a moment")
