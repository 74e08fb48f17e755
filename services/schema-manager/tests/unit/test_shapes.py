"""What the sweep decides, and what errors mean to it."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loquat_common.migrate import MigrationError
from loquat_common.problems import Problem
from loquat_schema_manager.adapters.cluster import statements, system_migrations, tenant_settings, version_of
from loquat_schema_manager.adapters.databases import meaning
from loquat_schema_manager.domain.shapes import Forward, Gone, Hindered, Hindrance, kind_of, pause_after, pause_before_retry
from loquat_schema_manager.errors import UnknownCluster

chances = st.floats(0, 1)


@given(st.sampled_from(Hindrance), st.integers(1, 10_000), chances)
def test_pauses_grow_up_to_a_cap_and_are_never_nothing(hindrance: Hindrance, attempts: int, chance: float) -> None:
    pause = pause_after(hindrance, attempts, chance)
    assert 2.5 <= pause <= 3600
    assert pause <= pause_after(hindrance, attempts, 0.0)
    assert pause_after(hindrance, attempts, chance) <= pause_after(hindrance, attempts + 1, chance)


@given(chances)
def test_the_quiet_tries_take_less_than_two_seconds_besides_their_lock_time_outs(chance: float) -> None:
    assert 0.5 <= sum(pause_before_retry(n, chance) for n in range(5)) < 2


def _postgres(kind: Callable[..., asyncpg.PostgresError]) -> asyncpg.PostgresError:
    return kind("text with a tenant's data")


@pytest.mark.parametrize(
    ("error", "hindrance"),
    [
        (UnknownCluster("c"), Hindrance.AWAY),
        (ConnectionRefusedError(), Hindrance.AWAY),
        (TimeoutError(), Hindrance.AWAY),
        (_postgres(asyncpg.AdminShutdownError), Hindrance.AWAY),
        (Problem(503, "service_unavailable", "away"), Hindrance.LOCKED),
        (MigrationError("0001_pre_tables was changed"), Hindrance.BROKEN),
        (_postgres(asyncpg.UndefinedTableError), Hindrance.BROKEN),
    ],
)
def test_an_error_says_when_to_come_again_and_repeats_nothing_of_the_tenants(error: Exception, hindrance: Hindrance) -> None:
    outcome = meaning(error)
    assert isinstance(outcome, Hindered)
    assert outcome.hindrance is hindrance
    assert "tenant's data" not in outcome.reason


def test_a_database_that_is_not_there_is_gone_and_a_mistake_of_ours_has_no_meaning() -> None:
    assert meaning(_postgres(asyncpg.InvalidCatalogNameError)) == Gone()
    assert meaning(ZeroDivisionError()) is None


def test_every_outcome_has_its_word() -> None:
    outcomes = [Forward(5), Gone(), *(Hindered(h, "") for h in Hindrance)]
    assert [kind_of(o) for o in outcomes] == ["forward", "gone", "away", "locked", "broken"]


def test_a_script_is_parted_at_semicolons_outside_of_bodies_and_comments() -> None:
    script = "CREATE ROLE a; -- not; here\nDO $$ BEGIN PERFORM 1; END $$;\n\nCREATE ROLE b"
    assert statements(script) == ["CREATE ROLE a", "DO $$ BEGIN PERFORM 1; END $$", "CREATE ROLE b"]


def test_the_limits_of_a_tenant_cluster_are_those_the_design_asks_for() -> None:
    settings = tenant_settings()
    assert settings["max_locks_per_transaction"] == "1024"
    assert settings["recovery_init_sync_method"] == "syncfs"
    assert settings["createrole_self_grant"] == ""
    assert {"max_notify_queue_pages", "reserved_connections", "temp_file_limit", "max_prepared_transactions"} <= settings.keys()
    assert not any("#" in v for v in settings.values())


def test_the_system_migrations_are_numbered_without_gaps() -> None:
    numbers = [m.number for m in system_migrations()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert version_of(system_migrations()) == numbers[-1]
