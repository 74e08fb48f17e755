"""`python -m loquat_simulator`: Meta on a laptop."""

from __future__ import annotations

import asyncio

from loquat_simulator.app import Settings, serve

if __name__ == "__main__":
    asyncio.run(serve(Settings()))
