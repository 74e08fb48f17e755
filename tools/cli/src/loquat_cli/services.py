"""The services of a stack: how each is started, and what its environment says. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from loquat_embedded.postgres import Cluster
from loquat_events.catalog import SERVICES, Service

from loquat_cli.databases import CONNECTIONS, CONTROL, TENANT_ROLES
from loquat_cli.ports import Ports
from loquat_cli.secrets import StackSecrets
from loquat_cli.settings import StackSettings

Name = Literal["gateway", "provisioner", "schema-manager", "conversation-log", "bot-runner", "connector", "simulator"]

TENANTS: Final = "tenants"
"""The name of the only cluster of project databases here."""
KEEPERS: Final = ("provisioner", "connector", "bot-runner")
"""Services that seal secrets."""
_INHERITED: Final = ("PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "JAVA_HOME")
_THE_USERS_OWN: Final = ("LOQUAT_URL", "LOQUAT_API_KEY")
_ARENAS: Final = {"MALLOC_ARENA_MAX": "2"}  # glibc keeps an arena per thread otherwise: memory of an idle service


@dataclass(frozen=True, slots=True)
class Plan:
    """All that environments are made of."""

    settings: StackSettings
    home: Path
    ports: Ports
    secrets: StackSecrets
    platform: Cluster
    tenants: Cluster
    kafka_servers: str
    inherited: Mapping[str, str]
    overrides: Mapping[str, Mapping[str, str]]
    programs: Path | None = None
    """Where PostgreSQL's programs are, for dumps; None: on the PATH."""

    @property
    def gateway(self) -> str:
        """The public address."""
        return f"http://{_reached(self.settings.host)}:{self.ports.gateway.number}"

    @property
    def simulator(self) -> str:
        """The phone page, and what stands in for Meta."""
        return f"http://{_reached(self.settings.host)}:{self.ports.simulator.number}"

    def health(self, service: Service) -> str:
        """Where a service says how it is."""
        return f"http://127.0.0.1:{self.ports.health[service].number}"

    def environment(self, name: Name) -> dict[str, str]:
        """Of a process. The settings of `loquat up` come first, what the stack decides over them, a test's overrides last."""
        base = {k: v for k, v in self.inherited.items() if k in _INHERITED or (k.startswith("LOQUAT_") and k not in _THE_USERS_OWN)}
        own = self._simulator() if name == "simulator" else {**self._service(name), **self._own(name)}
        return {**CONNECTIONS.get(name, {}), **base, **_ARENAS, **own, **self.overrides.get("*", {}), **self.overrides.get(name, {})}

    def _service(self, name: Service) -> dict[str, str]:
        chosen = {
            "ENVIRONMENT": self.settings.environment,
            "POST_MIGRATIONS": "true",  # one of each on this machine: nothing older runs beside it
            "BUS": self.settings.bus,
            "KAFKA_SERVERS": self.kafka_servers,
            "PLATFORM_DSN": self.platform.dsn(
                CONTROL, user=f"loquat_{name.replace('-', '_')}", password=self.secrets.platform_passwords[name]
            ),
            "HTTP_HOST": self.settings.host if name == "gateway" else "127.0.0.1",
            "HTTP_PORT": str((self.ports.gateway if name == "gateway" else self.ports.api[name]).number),
            "INTERNAL_PORT": str(self.ports.health[name].number),
            "LOG_LEVEL": self.settings.log_level,
            "DRAIN_SECONDS": str(self.settings.drain_seconds),
            "SIGNING_KEY": self.secrets.signing_keys[name].private,
            "TRUSTED_KEYS": json.dumps(self.secrets.trusted_keys()),
            "SERVICES": json.dumps({n: f"http://127.0.0.1:{p.number}" for n, p in self.ports.api.items()}),
            "TENANT_CLUSTERS": json.dumps({TENANTS: self._cluster(name)} if name in TENANT_ROLES else {}),
        }
        if name in KEEPERS:
            chosen["KEY_RING"] = self.secrets.key_ring
        if self.settings.failpoints_dir is not None:
            chosen["FAILPOINTS_DIR"] = str(self.settings.failpoints_dir.absolute())
        return {f"LOQUAT_{k}": v for k, v in chosen.items()}

    def _cluster(self, name: Service) -> dict[str, object]:
        return {"host": self.tenants.host, "port": self.tenants.port, "password": self.secrets.tenant_passwords[name]}

    def _own(self, name: Service) -> dict[str, str]:
        """What one service alone needs."""
        if name == "gateway":
            app = {"app_secret": self.secrets.app_secret, "verify_token": self.secrets.verify_token}
            return {"LOQUAT_META_APPS": json.dumps({"default": app})}
        if name == "provisioner":
            postgres = {"LOQUAT_POSTGRES_BIN": str(self.programs)} if self.programs is not None else {}
            return {"LOQUAT_STARTER_BOT": str(starter_bot(self.settings)), **postgres}
        if name == "bot-runner":
            return {"LOQUAT_BUNDLES": str(self.home / "bundles")}
        if name == "connector":
            return {"LOQUAT_GRAPH_URL": self.simulator}
        return {}

    def _simulator(self) -> dict[str, str]:
        return {
            "LOQUAT_SIMULATOR_HOST": self.settings.host,
            "LOQUAT_SIMULATOR_PORT": str(self.ports.simulator.number),
            "LOQUAT_LOG_LEVEL": self.settings.log_level,
        }


def module(name: Name) -> str:
    """What `python -m` runs."""
    return f"loquat_{name.replace('-', '_')}"


def starter_bot(settings: StackSettings) -> Path:
    """The folder of the bot that new projects get: the setting's, else that of the checkout this command comes from."""
    if settings.starter_bot is not None:
        return settings.starter_bot.absolute()
    return Path(__file__).resolve().parents[4] / "bots" / "starter"


def _reached(host: str) -> str:
    """The address by which this machine reaches a server that listens on `host`."""
    if host in {"0.0.0.0", "::"}:  # noqa: S104  (a comparison)
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


EVERYTHING: Final[tuple[Name, ...]] = (*SERVICES, "simulator")
