"""`loquat bot test` gives the tests a throw-away PostgreSQL; without it, name one in LOQUAT_SCRATCH_DATABASE."""

import os
from pathlib import Path

import pytest
from loquat.testing import BotTester, pytest_pyfunc_call  # noqa: F401  (runs async tests)

HERE = Path(__file__).parent


@pytest.fixture
def tester():
    """A contact, and the bot with its table."""
    database = os.environ.get("LOQUAT_SCRATCH_DATABASE")
    if database is None:
        pytest.skip("no database: run `loquat bot test`, or name one in LOQUAT_SCRATCH_DATABASE")
    with BotTester.load(HERE, database=database, schema=HERE / "schema.sql") as tester:
        yield tester
