"""`loquat cluster`."""

from __future__ import annotations

from functools import partial
from typing import Literal

import asyncpg
from loquat_common.db import CONNECT_LIMIT, is_gone
from loquat_schema_manager.adapters.cluster import bootstrap_cluster
from pydantic import ValidationError

from loquat_cli.databases import TENANT_ROLES, bootstrap_platform
from loquat_cli.errors import Trouble
from loquat_cli.settings import AdminSettings
from loquat_cli.show import console, plain

Kind = Literal["tenants", "platform"]


class NotUpgraded(Trouble):
    """The cluster is not what this release wants."""


async def upgrade_cluster(kind: Kind, /) -> None:
    """Make or bring forward what only a superuser can: roles, rights and walls, in a cluster and in every database of it.

    Before the services of a new release start; harmless when repeated, and while they run. LOQUAT_ADMIN_DSN is the URL of a superuser;
    LOQUAT_SERVICE_PASSWORDS sets passwords of services' logins (JSON by service), which a new cluster needs. `loquat up` does the same
    for its own clusters.

    Parameters
    ----------
    kind
        What the cluster is for: `tenants` (the projects' databases) or `platform` (the control database and the bus).
    """
    settings = _settings(kind)
    assert settings.admin_dsn is not None  # noqa: S101  (_settings says so)
    connect = partial(_connect, settings.admin_dsn.get_secret_value())
    passwords = {name: password.get_secret_value() for name, password in settings.service_passwords.items()}
    try:
        if kind == "platform":
            await bootstrap_platform(connect, passwords)
            left = ()
        else:
            left = await bootstrap_cluster(connect, passwords, all_again=True)
    except asyncpg.InsufficientPrivilegeError:
        raise NotUpgraded("the login of LOQUAT_ADMIN_DSN is no superuser") from None
    except Exception as error:
        if not is_gone(error):
            raise
        raise NotUpgraded(f"the cluster of LOQUAT_ADMIN_DSN does not let us in ({type(error).__name__})") from None
    if left:
        names = "\n  ".join(f"{each.database}: {each.reason}" for each in left)
        raise NotUpgraded(f"everything but these databases is brought forward; run it again:\n  {names}")
    console().print(plain(f"the {kind} cluster is as this release wants it"))


def _settings(kind: Kind) -> AdminSettings:
    try:
        settings = AdminSettings()
    except ValidationError as error:
        raise NotUpgraded("; ".join(f"LOQUAT_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors(include_input=False))) from None
    if settings.admin_dsn is None:
        raise NotUpgraded("LOQUAT_ADMIN_DSN is not set: the URL of a superuser of the cluster")
    if kind == "tenants" and (strange := settings.service_passwords.keys() - set(TENANT_ROLES)):
        raise NotUpgraded(f"LOQUAT_SERVICE_PASSWORDS names {', '.join(sorted(strange))}; {', '.join(TENANT_ROLES)} log in to this cluster")
    return settings


async def _connect(dsn: str, database: str) -> asyncpg.Connection[asyncpg.Record]:
    return await asyncpg.connect(dsn, database=database, timeout=CONNECT_LIMIT, command_timeout=120, statement_cache_size=0)
