"""`python -m loquat_connector` runs the service."""

from __future__ import annotations

from loquat_common.service import run

from loquat_connector.app import serve
from loquat_connector.settings import Settings

if __name__ == "__main__":
    run("connector", Settings, serve)
