"""`loquat cluster upgrade` on real clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from loquat_cli.commands.cluster import Kind, NotUpgraded, upgrade_cluster

from tests.tenants import PASSWORD, Tenants

if TYPE_CHECKING:
    from conftest import Platform


@pytest.mark.parametrize("kind", ["tenants", "platform"])
async def test_a_superuser_brings_a_cluster_forward_as_often_as_he_likes(
    tenants: Tenants, platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: Kind
) -> None:
    dsn = tenants.cluster.dsn() if kind == "tenants" else platform.cluster.dsn()
    monkeypatch.setenv("LOQUAT_ADMIN_DSN", dsn)
    monkeypatch.setenv("LOQUAT_SERVICE_PASSWORDS", f'{{"provisioner": "{PASSWORD}"}}')
    for _ in range(2):
        await upgrade_cluster(kind)
    assert f"the {kind} cluster is as this release wants it" in capsys.readouterr().out
    if kind == "tenants":
        await (await tenants.as_service("provisioner")("postgres")).close()


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("", "LOQUAT_ADMIN_DSN is not set"),
        ("nobody", "does not let us in"),
        ("loquat_provisioner", "is no superuser"),
    ],
)
async def test_a_login_that_cannot_is_told_in_words(tenants: Tenants, monkeypatch: pytest.MonkeyPatch, dsn: str, said: str) -> None:
    monkeypatch.delenv("LOQUAT_ADMIN_DSN", raising=False)
    if dsn:
        monkeypatch.setenv("LOQUAT_ADMIN_DSN", tenants.cluster.dsn(user=dsn, password=PASSWORD))
    with pytest.raises(NotUpgraded, match=said):
        await upgrade_cluster("tenants")
