"""A restored backup may be of an older shape: a database of a new epoch is looked at again."""

from __future__ import annotations

from loquat_schema_manager.adapters.store import Store
from loquat_schema_manager.domain.shapes import Forward, Outcome, Target


async def test_a_database_of_a_new_epoch_is_behind_until_somebody_has_looked_and_the_old_epoch_changes_nothing(store: Store) -> None:
    looked: list[Target] = []

    async def look(target: Target) -> Outcome:
        looked.append(target)
        return Forward(7)

    before, after = (Target("tenants", "p_1", "prj_1", epoch) for epoch in (1, 2))
    for noted, times in ((before, 1), (before, 1), (after, 2), (after, 2), (before, 2)):
        await store.note([noted])
        while await store.work(7, look) is not None:
            continue
        assert len(looked) == times
    assert (await store.progress(7)).behind == 0
