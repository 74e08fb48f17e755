"""What each process is told by its environment."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from loquat_bot_runner.settings import Settings as BotRunner
from loquat_cli.databases import platform_cluster, tenants_cluster
from loquat_cli.ports import Ports
from loquat_cli.secrets import StackSecrets
from loquat_cli.services import EVERYTHING, Name, Plan, starter_bot
from loquat_cli.settings import StackSettings
from loquat_common.settings import ServiceSettings
from loquat_connector.settings import Settings as Connector
from loquat_conversation_log.settings import Settings as ConversationLog
from loquat_events.catalog import SERVICES
from loquat_gateway.settings import Settings as Gateway
from loquat_provisioner.settings import Settings as Provisioner


def plan(home: Path, **more: object) -> Plan:
    settings = StackSettings.for_tests(home, **more)
    ports = Ports.choose(settings)
    platform = platform_cluster(home, ports.platform.number, durable=False)
    tenants = tenants_cluster(home, ports.tenants.number, durable=False)
    inherited = {"PATH": "/bin", "LOQUAT_BATCH": "7", "LOQUAT_API_KEY": "lq_mine", "EDITOR": "vi"}
    overrides = {"*": {"X": "all"}, "gateway": {"X": "one"}}
    return Plan(settings, home, ports, StackSecrets(), platform, tenants, "127.0.0.1:9092", inherited, overrides)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gateway", Gateway),
        ("provisioner", Provisioner),
        ("conversation-log", ConversationLog),
        ("bot-runner", BotRunner),
        ("connector", Connector),
    ],
)
def test_every_service_can_use_its_environment(
    name: Name, kind: type[ServiceSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in plan(tmp_path, failpoints_dir=tmp_path).environment(name).items():
        monkeypatch.setenv(key, value)
    settings = kind()  # pyright: ignore[reportCallIssue]  (from the environment)
    assert settings.environment == "test"
    assert settings.failpoints_dir == tmp_path
    assert settings.post_migrations
    assert set(settings.trusted_keys) == set(SERVICES)
    assert f"loquat_{name.replace('-', '_')}:" in settings.platform_dsn.get_secret_value()


def test_each_service_gets_its_own_secrets_only(tmp_path: Path) -> None:
    made = plan(tmp_path)
    for name in SERVICES:
        text = json.dumps(made.environment(name))
        others = [s for s in SERVICES if s != name]
        foreign = [made.secrets.platform_passwords[s] for s in others] + [made.secrets.tenant_passwords[s] for s in others]
        foreign += [json.dumps(made.secrets.signing_keys[s].private)[1:-1] for s in others]
        assert not [f for f in foreign if f in text], name
    assert made.secrets.key_ring not in made.environment("gateway").values()
    assert "LOQUAT_TENANT_CLUSTERS" not in made.environment("simulator")
    assert json.loads(made.environment("connector")["LOQUAT_TENANT_CLUSTERS"]) == {}


def test_what_the_user_set_reaches_the_services_but_not_the_users_own_key_or_other_programs_settings(tmp_path: Path) -> None:
    environment = plan(tmp_path).environment("conversation-log")
    assert environment["LOQUAT_BATCH"] == "7"
    assert "EDITOR" not in environment
    assert "LOQUAT_API_KEY" not in environment


def test_overrides_come_last_those_for_one_process_after_those_for_all(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert {name: made.environment(name)["X"] for name in EVERYTHING} == {**dict.fromkeys(EVERYTHING, "all"), "gateway": "one"}


def test_a_server_that_listens_everywhere_is_reached_here(tmp_path: Path) -> None:
    assert plan(tmp_path, host="0.0.0.0", gateway_port=18_080).gateway == "http://127.0.0.1:18080"  # noqa: S104
    assert plan(tmp_path, host="::1", gateway_port=18_080).gateway == "http://[::1]:18080"


def test_the_starter_bot_is_that_of_the_checkout() -> None:
    assert (starter_bot(StackSettings.for_tests(Path("unused"))) / "bot.py").is_file()


def test_what_services_bots_and_editors_may_open_fits_into_the_tenants_cluster(tmp_path: Path) -> None:
    made = plan(tmp_path)
    settings = {name: int(value) for name, value in made.tenants._settings.items() if name.endswith("_connections")}

    def opens(name: Name, what: str) -> int:
        return int(made.environment(name)[f"LOQUAT_{what}_CONNECTIONS"])

    platform = opens("bot-runner", "PROJECT") + opens("conversation-log", "PROJECT")
    assert platform <= settings["reserved_connections"] - 5, "provisioner and schema-manager have a few themselves"
    ordinary = settings["max_connections"] - settings["reserved_connections"] - settings["superuser_reserved_connections"]
    bots, editors = opens("bot-runner", "BOT"), opens("schema-manager", "EDITOR")
    assert bots + editors <= ordinary - settings["reserved_connections"] - 10, "owners have connections of their own"


def test_who_wants_more_connections_says_so(tmp_path: Path) -> None:
    wanted = replace(plan(tmp_path), inherited={"LOQUAT_BOT_CONNECTIONS": "70"})
    assert wanted.environment("bot-runner")["LOQUAT_BOT_CONNECTIONS"] == "70"
