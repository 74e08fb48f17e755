"""table.changed: added up, bounded, never lost while the bus is away for a moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from loquat_common.bus.memory import MemoryBroker, MemoryBus
from loquat_common.bus.port import BusUnavailable
from loquat_events.catalog import PROJECTS
from loquat_events.projects import SchemaChanged, TableChanged
from loquat_schema_manager.handlers import tablechanges
from loquat_schema_manager.handlers.tablechanges import TableChanges

from tests.system.world import until


def make(broker: MemoryBroker, window: float = 0.0) -> TableChanges:
    return TableChanges(MemoryBus("schema-manager", broker), lambda: datetime.now(UTC), uuid4, window=window)


def said(broker: MemoryBroker) -> list[tuple[str, str, int, str]]:
    found = [e.data for e in broker.events(PROJECTS)]
    return sorted((d.project_id, d.table, d.count, d.actor) for d in found if isinstance(d, TableChanged))


async def test_changes_are_added_up_per_project_table_and_person() -> None:
    broker = MemoryBroker()
    changes = make(broker)
    for _ in range(100):
        changes.note("p", "a", 2, "anna")
    changes.note("p", "a", 1, "bert")
    changes.note("p", "b", 1, "anna")
    changes.note("q", "a", 1, "anna")
    await changes.flush()
    await changes.flush()
    assert said(broker) == [("p", "a", 1, "bert"), ("p", "a", 200, "anna"), ("p", "b", 1, "anna"), ("q", "a", 1, "anna")]


async def test_the_loop_tells_after_its_window_and_sleeps_in_between() -> None:
    broker = MemoryBroker()
    changes = make(broker, 0.01)
    running = asyncio.create_task(changes.run())
    for n in (1, 2):
        changes.note("p", "a", n, "anna")

        async def told(n: int = n) -> bool:
            return len(said(broker)) == n

        await until(told, "the change is told")
    assert [s[2] for s in said(broker)] == [1, 2]
    running.cancel()


async def test_a_bus_that_is_away_gets_the_same_events_later() -> None:
    broker = MemoryBroker(down=True)
    changes = make(broker)
    changes.note("p", "a", 1, "anna")
    with pytest.raises(BusUnavailable):
        await changes.flush()
    changes.note("p", "a", 5, "anna")
    broker.down = False
    await changes.flush()
    assert [s[2] for s in said(broker)] == [1, 5]


async def test_there_is_a_bound_to_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tablechanges, "MOST", 10)
    broker = MemoryBroker()
    changes = make(broker)
    for n in range(20):
        changes.note("p", f"t{n}", 1, "anna")
    changes.note("p", "t3", 4, "anna")
    await changes.flush()
    assert Counter(s[2] for s in said(broker)) == {1: 9, 5: 1}


async def test_shapes_that_the_console_changed_are_told_together_and_say_that_no_change_set_was_recorded() -> None:
    broker = MemoryBroker()
    changes = make(broker)
    changes.note_shapes("p", ["b", "a"], "anna")
    changes.note_shapes("p", ["a", "c"], "anna")
    changes.note_shapes("p", [], "bert")
    await changes.flush()
    found = [e.data for e in broker.events(PROJECTS) if isinstance(e.data, SchemaChanged)]
    assert sorted((d.actor, d.tables, d.recorded) for d in found) == [("anna", ("a", "b", "c"), False), ("bert", (), False)]
