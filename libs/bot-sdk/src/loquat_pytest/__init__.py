"""What pytest finds of the SDK by itself: the fixture `bot_tester`, and `async def` tests that use it.

It is loaded in every run of pytest where the SDK is installed, so it imports nothing of it, and does nothing, until a test asks for the fixture.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from loquat.testing import BotTester

_FIXTURE: Final = "bot_tester"
_SCRATCH: Final = "LOQUAT_SCRATCH_DATABASE"
_SCHEMA: Final = "schema.sql"


@pytest.fixture
def bot_tester(request: pytest.FixtureRequest) -> Generator[BotTester]:
    """A `loquat.testing.BotTester` with the bot of the nearest `bot.py` above the test, loaded anew.

    With LOQUAT_SCRATCH_DATABASE, which `loquat bot test` sets, it has that database, and in it what the bot's `schema.sql` makes, if there is one.
    """
    from loquat.testing import BotTester  # noqa: PLC0415  (see above)

    home = next((p for p in request.path.parents if (p / "bot.py").is_file()), None)
    if home is None:
        pytest.fail(f"there is no bot.py in {request.path.parent} or above it", pytrace=False)
    schema = [home / _SCHEMA] if (home / _SCHEMA).is_file() else []
    with BotTester.load(home, database=os.environ.get(_SCRATCH), schema=schema) as tester:  # noqa: TID251  (of whoever runs the tests)
        yield tester


def pytest_pyfunc_call(pyfuncitem: Any) -> bool | None:
    """Runs an `async def` test that has the fixture, unless another plugin has made it one that is not."""
    if _FIXTURE not in pyfuncitem.fixturenames or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}))  # noqa: SLF001  (as the plugins do)
    return True
