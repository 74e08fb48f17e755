"""`python -m loquat_schema_manager` runs the service."""

from __future__ import annotations

from loquat_common.service import run

from loquat_schema_manager.app import serve
from loquat_schema_manager.settings import Settings

if __name__ == "__main__":
    run("schema-manager", Settings, serve)
