"""`python -m loquat_bot_runner` runs the service."""

from __future__ import annotations

from loquat_common.service import run

from loquat_bot_runner.app import serve
from loquat_bot_runner.settings import Settings

if __name__ == "__main__":
    run("bot-runner", Settings, serve)
