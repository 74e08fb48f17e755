"""`python -m loquat_gateway` runs the service; `python -m loquat_gateway create-owner EMAIL` makes the first owner and prints it once."""

from __future__ import annotations

import asyncio
import json
import sys

from loquat_common.service import run

from loquat_gateway.app import create_owner, serve
from loquat_gateway.settings import Settings

if __name__ == "__main__":
    if sys.argv[1:2] == ["create-owner"]:
        settings = Settings()  # pyright: ignore[reportCallIssue]  (from the environment)
        sys.stdout.write(json.dumps(asyncio.run(create_owner(settings, sys.argv[2]))) + "\n")
    else:
        run("gateway", Settings, serve)
