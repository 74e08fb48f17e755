"""Workers for tests, at the highest isolation level that this machine gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from loquat_bot_runner.adapters.credentials import Login
from loquat_bot_runner.adapters.egress import Outside
from loquat_bot_runner.adapters.housing import Housing, LimitsOf
from loquat_bot_runner.adapters.layers import Layers
from loquat_bot_runner.adapters.links import Room
from loquat_bot_runner.adapters.worker import Worker, Write
from loquat_bot_runner.domain.limits import BotLimits
from loquat_common.client import InternalClient
from loquat_events.projects import ProjectListed
from loquat_sandbox import Sandbox

from tests.tenants import PASSWORD, Project, Tenants

NOWHERE = Login("127.0.0.1", 1, "none", "nobody", "x")
"""A database that does not answer."""


def login_of(tenants: Tenants, project: Project) -> Login:
    """The bot's own, on a real cluster."""
    return Login(tenants.cluster.host, tenants.cluster.port, project.database, project.names.login("bot"), PASSWORD)


class Doorman:
    """Credentials that are known without a provisioner."""

    def __init__(self, login: Login = NOWHERE) -> None:
        self.login = login

    async def of(self, _project: ProjectListed, *, anew: bool = False) -> Login:
        del anew
        return self.login


async def plan(_project: str) -> BotLimits:
    """Of every project: half the time that a call has otherwise, so that a test need not wait for all of it."""
    return BotLimits(call_seconds=5)


async def no_names(_name: str) -> Sequence[str]:
    """There is no name server."""
    raise OSError("no name server")


def housing(
    sandbox: Sandbox, login: Login = NOWHERE, limits: LimitsOf = plan, layers: Layers | None = None, connector: InternalClient | None = None
) -> Housing:
    """Of all projects, with one login."""
    return Housing(
        sandbox, cast("Any", Doorman(login)), limits, Room(), Outside(no_names), layers=layers, connector=connector, statements=100
    )


async def started(
    sandbox: Sandbox, folder: Path, write: Write, login: Login = NOWHERE, project: str = "prj", layers: Layers | None = None
) -> Worker:
    """A worker with its bot loaded; one that does not load leaves no process behind."""
    listed = ProjectListed(project_id=project, organization_id="o", name="p", state="ready", cluster="c", database="d")
    worker, database = await housing(sandbox, login, layers=layers).worker(listed, folder, write)
    try:
        await worker.start(database)
    except BaseException:
        await worker.kill()
        raise
    return worker
