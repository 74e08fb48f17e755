"""What the owner sets without a deployment: configuration and secrets."""

from __future__ import annotations

from aiohttp import web
from loquat_common.directory import Directory
from loquat_common.http import Api
from loquat_common.problems import Problem, not_found
from loquat_events.projects import ProjectListed
from loquat_rest import botsettings as shapes
from loquat_rest.operation import OneProject

from loquat_bot_runner.adapters.configurations import Configurations, OverLimit
from loquat_bot_runner.adapters.gate import Gate
from loquat_bot_runner.adapters.pointers import Pointers
from loquat_bot_runner.adapters.secrets import Secrets, TooMany
from loquat_bot_runner.domain.configuration import Setting, flaw
from loquat_bot_runner.http.conduct import ConductApi
from loquat_bot_runner.http.ready import ready
from loquat_bot_runner.http.versions import BELOW


class SettingsApi:
    """A change holds from the project's next event on."""

    def __init__(self, configurations: Configurations, secrets: Secrets, pointers: Pointers, gate: Gate, directory: Directory) -> None:
        self._configurations, self._secrets = configurations, secrets
        self._pointers, self._gate, self._directory = pointers, gate, directory
        self._conduct = ConductApi(configurations, directory)

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        self._conduct.add_to(api)
        for operation, handler in (
            (shapes.CONFIGURATION, self.configuration),
            (shapes.CONFIGURE, self.configure),
            (shapes.UNCONFIGURE, self.unconfigure),
            (shapes.SECRETS, self.secrets),
            (shapes.SET_SECRET, self.set_secret),
            (shapes.DELETE_SECRET, self.delete_secret),
        ):
            api.serve(operation, handler, below=BELOW)

    async def configuration(self, _request: web.Request, *, path: OneProject) -> shapes.Configuration:
        """What is set, and what may be."""
        with ready(self._directory, path.project_id) as project:
            items = await self._configurations.list(project)
            declared = {k: s for settings in await self._declared(project) for k, s in settings.items()}
        return shapes.Configuration(
            items=[shapes.Configured.model_validate(i.model_dump()) for i in items],
            declared=[
                shapes.DeclaredKey(key=s.key, type=s.kind, nullable=s.nullable, help=s.help, default=s.default) for s in declared.values()
            ],
        )

    async def configure(self, _request: web.Request, *, path: shapes.OneKey, body: shapes.NewValue) -> shapes.Configured:
        """Sets a key that one of the deployed versions takes."""
        with ready(self._directory, path.project_id) as project:
            found = [flaw(settings, path.key, body.value) for settings in await self._declared(project)]
            if found and (wrong := found[0]) is not None and None not in found:
                raise Problem(422, "configuration_refused", "The bot does not take this", wrong.detail, key=path.key, advice=wrong.advice)
            try:
                made = await self._configurations.set(project, path.key, body.value)
            except OverLimit as limit:
                raise Problem(422, "over_limit", "A limit of the configuration is reached", str(limit), key=path.key) from None
        return shapes.Configured.model_validate(made.model_dump())

    async def unconfigure(self, _request: web.Request, *, path: shapes.OneKey) -> None:
        """Removes a key: the bot's own default holds."""
        with ready(self._directory, path.project_id) as project:
            if not await self._configurations.delete(project, path.key):
                raise not_found("key")

    async def secrets(self, _request: web.Request, *, path: OneProject) -> shapes.SecretList:
        """Names and dates."""
        return shapes.SecretList(items=[shapes.Secret.model_validate(s.model_dump()) for s in await self._secrets.list(path.project_id)])

    async def set_secret(self, _request: web.Request, *, path: shapes.OneSecret, body: shapes.NewSecret) -> shapes.Secret:
        """Kept first, told afterwards: who was cut off in between sets it again."""
        if len(body.value.encode(errors="replace")) > shapes.LONGEST_SECRET or not _is_text(body.value):
            limit = f"a secret is a text of at most {shapes.LONGEST_SECRET} bytes"
            raise Problem(422, "over_limit", "The secret is not kept", limit, name=path.name)
        with ready(self._directory, path.project_id) as project:
            try:
                made = await self._secrets.set(path.project_id, path.name, body.value)
            except TooMany:
                limit = f"a project has at most {shapes.MOST_SECRETS} secrets, of {shapes.ALL_SECRETS} bytes together"
                raise Problem(422, "over_limit", "The secret is not kept", limit, name=path.name) from None
            await self._configurations.mark_secrets(project)
        return shapes.Secret.model_validate(made.model_dump())

    async def delete_secret(self, _request: web.Request, *, path: shapes.OneSecret) -> None:
        """Marked in any case: one that was cut off before the mark is gone from the list, and not yet from warm bots."""
        with ready(self._directory, path.project_id) as project:
            there = await self._secrets.delete(path.project_id, path.name)
            await self._configurations.mark_secrets(project)
        if not there:
            raise not_found("secret")

    async def _declared(self, project: ProjectListed) -> list[dict[str, Setting]]:
        """What the versions declare by which contacts are answered."""
        current = await self._pointers.current(project.project_id)
        if current is None:
            return []
        canary = [current.canary.version] if current.canary is not None else []
        return [await self._gate.settings(project, version) for version in (current.version, *canary)]


def _is_text(value: str) -> bool:
    """Half a character is none."""
    return value.encode(errors="ignore").decode() == value
