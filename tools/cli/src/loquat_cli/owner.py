"""The first owner: made by the gateway, shown once, kept in `$LOQUAT_HOME/owner.json` (mode 0600)."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from loquat_embedded.child import before_exec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loquat_cli.errors import Trouble
from loquat_cli.home import write_private

_LIMIT: Final = 60.0  # seconds for the gateway's program; one is usual


class OwnerLost(Trouble):
    """There is an owner, but the key is gone."""


class OwnerNotMade(Trouble):
    """The gateway's program failed."""


class Owner(BaseModel):
    """The content of owner.json. The last four fields are the demo project's."""

    model_config = ConfigDict(frozen=True)

    email: str
    password: str = Field(repr=False)
    api_key: str = Field(repr=False)
    gateway: str
    simulator: str
    project_id: str
    phone_number_id: str
    app_secret: str = Field(repr=False)
    verify_token: str = Field(repr=False)

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """The kept one; None where there is none.

        Raises:
            OwnerLost: the file is damaged.
        """
        try:
            return cls.model_validate_json(path.read_text())
        except FileNotFoundError:
            return None
        except ValidationError:
            raise OwnerLost(f"{path} is damaged: restore it from a backup") from None

    def save(self, path: Path) -> None:
        """Keeps it."""
        write_private(path, self.model_dump_json(indent=1) + "\n")


class Fresh(BaseModel):
    """An owner to be made, kept before the gateway hears of it: whoever dies in between finds it again."""

    email: str
    password: str = Field(repr=False)
    api_key: str = Field(repr=False)

    @classmethod
    def kept(cls, path: Path, email: str) -> Self:
        """The one that a start before this noted and perhaps made; else a new one, noted."""
        if path.exists():
            return cls.model_validate_json(path.read_text())
        fresh = cls(email=email, password=secrets.token_urlsafe(18), api_key="lq_" + secrets.token_urlsafe(32))
        write_private(path, fresh.model_dump_json() + "\n")
        return fresh


async def create_owner(environment: Mapping[str, str], owner: Fresh) -> bool:
    """Makes the first owner, or finds it made; False when there is another one.

    Raises:
        OwnerNotMade: the gateway's program failed; with its last words.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "loquat_gateway",
        "create-owner",
        owner.email,
        "-",
        env=dict(environment),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=before_exec(death_signal=None),
    )
    try:
        async with asyncio.timeout(_LIMIT):
            out, err = await process.communicate(owner.model_dump_json(exclude={"email"}).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise OwnerNotMade("the owner could not be made:\n" + "\n".join(err.decode(errors="replace").splitlines()[-5:]))
    return not json.loads(out.decode().strip().splitlines()[-1]).get("exists")
