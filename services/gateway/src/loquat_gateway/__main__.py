"""`python -m loquat_gateway` runs the service; `... create-owner EMAIL` makes the first owner and prints its password and key, once.

`... create-owner EMAIL -` takes `{"password", "api_key"}` from standard input instead: a caller that keeps them first loses nothing if it dies here.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict

from loquat_common.service import run

from loquat_gateway.adapters.people import KEY_PREFIX, Owner
from loquat_gateway.app import create_owner, serve
from loquat_gateway.settings import Settings


def _owner(email: str, given: str) -> Owner:
    if not given:
        return Owner.fresh(email)
    owner = Owner(email, **{k: v for k, v in json.loads(given).items() if k in {"password", "api_key"}})
    if not owner.api_key.startswith(KEY_PREFIX) or len(owner.api_key) < 40 or len(owner.password) < 12:  # noqa: PLR2004  (what nobody guesses)
        sys.exit(f"api_key begins with {KEY_PREFIX} and has 40 characters or more, password has 12 or more")
    return owner


if __name__ == "__main__":
    if sys.argv[1:2] == ["create-owner"]:
        settings = Settings()  # pyright: ignore[reportCallIssue]  (from the environment)
        owner = _owner(sys.argv[2], sys.stdin.read() if sys.argv[3:] == ["-"] else "")
        made = asyncio.run(create_owner(settings, owner))
        sys.stdout.write(json.dumps(asdict(owner) if made else {"exists": True}) + "\n")
    else:
        run("gateway", Settings, serve)
