"""Copies that fail on the way: counted, told with a reason, and nothing of them stays."""

from __future__ import annotations

from typing import Any

import pytest
from loquat_common.bus.port import Done, Retry
from loquat_provisioner.adapters import copies
from loquat_provisioner.adapters.backups import BackupStore
from loquat_provisioner.domain.life import StepFailed

from services.provisioner.tests.test_backups import extra, lived, take, usable
from services.provisioner.tests.workshop import Workshop


async def test_a_copy_that_takes_too_long_is_an_attempt_that_failed(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time-out is not a cluster that is away: put off without counting, it would be tried for ever and close the project each time."""
    project, _ = await lived(shop)
    order = take(project)
    monkeypatch.setattr(copies, "_LONGEST_COPY", 0.001)
    assert isinstance(await shop.handle(order), Retry)
    assert isinstance(await shop.handle(order, attempts=2), Done)
    (backup,) = await BackupStore(shop.pool).of_project(project.project_id, 1)
    assert (backup.state, backup.reason) == ("failed", "copying took longer than 0.001 seconds")
    assert await extra(shop) == set()
    await usable(shop, project)


async def test_a_backup_that_fails_after_its_copy_was_made_leaves_no_copy(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    project, _ = await lived(shop)
    order, copy = take(project), copies.copy

    async def half(*given: Any) -> int:
        await copy(*given)
        raise StepFailed("something came in between")

    monkeypatch.setattr(copies, "copy", half)
    assert isinstance(await shop.handle(order), Retry)
    assert isinstance(await shop.handle(order, attempts=2), Done)
    assert await extra(shop) == set()
    await usable(shop, project)
