"""What the tests share. `loquat bot test` gives them a throw-away PostgreSQL; without it, name one in LOQUAT_SCRATCH_DATABASE."""

import os
from pathlib import Path

import pytest
from loquat.testing import BotTester, pytest_pyfunc_call  # noqa: F401  (runs async tests)


@pytest.fixture
def tester():
    with BotTester.load(Path(__file__).parent) as tester:
        yield tester


@pytest.fixture
def database():
    """A throw-away PostgreSQL."""
    address = os.environ.get("LOQUAT_SCRATCH_DATABASE")
    if address is None:
        pytest.skip("no database: run `loquat bot test`, or name one in LOQUAT_SCRATCH_DATABASE")
    return address


@pytest.fixture
def booking(database):
    """A tester whose bot has a database."""
    with BotTester.load(Path(__file__).parent, database=database) as tester:
        yield tester
