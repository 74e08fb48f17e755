"""Backends of tenants' logins run at the lowest priority, those of the platform do not."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest
from loquat_cli.courtesy import Courtesy
from loquat_embedded.postgres import Cluster


@pytest.mark.promise("P5")
@pytest.mark.skipif(sys.platform != "linux", reason="only /proc tells whose a backend is")
async def test_a_tenants_backend_is_lowered_and_the_platforms_is_not() -> None:
    with tempfile.TemporaryDirectory(prefix="loquat-courtesy-") as folder:
        Path(folder).chmod(0o711)
        cluster = Cluster(Path(folder) / "one", durable=False)
        await cluster.start()
        admin = await cluster.connect()
        priorities: dict[str, int] = {}
        for role in ("p_0123456789ab_bot", "loquat_bot_runner", "p_0123456789ab_botanist"):
            await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        courtesy = Courtesy(lambda: cluster.pid)
        courtesy.look()
        for role in ("p_0123456789ab_bot", "loquat_bot_runner", "p_0123456789ab_botanist"):
            session = await cluster.connect(user=role, password="x")
            courtesy.look()
            priorities[role] = os.getpriority(os.PRIO_PROCESS, session.get_server_pid())
            await session.close()
        await admin.close()
        await cluster.stop()
        courtesy.look()
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    assert priorities == {"p_0123456789ab_bot": 19, "loquat_bot_runner": usual, "p_0123456789ab_botanist": usual}
