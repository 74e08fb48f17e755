"""The starter bot, deployed through bot-runner."""

from __future__ import annotations

from pathlib import Path

from loquat_common.client import InternalClient, ServiceUnavailable
from loquat_common.problems import Problem

from loquat_provisioner.domain.life import StepFailed


class StarterBot:
    """The files of a folder, deployed to a new project. The same content is the same version, so repeating does no harm."""

    def __init__(self, client: InternalClient, folder: Path) -> None:
        self._client = client
        self._files = {
            str(f.relative_to(folder)): f.read_text()
            for f in sorted(folder.rglob("*"))
            if f.is_file() and f.suffix in {".py", ".toml", ".md"}
        }
        if "bot.py" not in self._files:
            raise FileNotFoundError(f"the starter bot's folder {folder} has no bot.py (setting LOQUAT_STARTER_BOT)")

    async def deploy(self, project: str) -> None:
        """Saves and deploys it.

        Raises:
            StepFailed: bot-runner does not answer or refuses it.
        """
        path = f"/internal/projects/{project}/deployments"
        body = {"files": self._files, "message": "The starter bot"}
        try:
            await self._client.call("POST", path, actor=self._client.itself("bots:write"), json=body)
        except ServiceUnavailable:
            raise StepFailed("bot-runner does not answer") from None
        except Problem as problem:
            raise StepFailed(f"bot-runner refused the starter bot: {problem.title}") from None
