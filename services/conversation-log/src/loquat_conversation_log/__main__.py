"""`python -m loquat_conversation_log` runs the service."""

from __future__ import annotations

from loquat_common.service import run

from loquat_conversation_log.app import serve
from loquat_conversation_log.settings import Settings

if __name__ == "__main__":
    run("conversation-log", Settings, serve)
