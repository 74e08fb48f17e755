"""The examples' tests among those of the whole repository: with its database. `loquat bot test` does not read this."""

from __future__ import annotations

import pytest
from loquat_embedded.postgres import Cluster


@pytest.fixture(autouse=True)
def scratch_database(platform_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOQUAT_SCRATCH_DATABASE", platform_cluster.dsn())
