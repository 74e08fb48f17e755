"""The secrets of an embedded stack: made at the first start, kept in `$LOQUAT_HOME/secrets.json` (mode 0600)."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from loquat_common.crypto import KeyRing
from loquat_common.tokens import new_key
from loquat_events.catalog import SERVICES
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loquat_cli.errors import Trouble
from loquat_cli.home import write_private


class SecretsBroken(Trouble):
    """The file of secrets cannot be read. Without it the data are closed."""


class KeyPair(BaseModel):
    """Ed25519 JWKs as JSON texts."""

    private: str = Field(repr=False)
    public: str


class DemoNumber(BaseModel):
    """The number of the demo project, as the simulator knows it."""

    phone_number_id: str
    waba_id: str
    display_phone_number: str
    token: str = Field(repr=False)


def _digits(count: int) -> str:
    return "1" + "".join(secrets.choice("0123456789") for _ in range(count - 1))


def _demo_number() -> DemoNumber:
    return DemoNumber(
        phone_number_id=_digits(15),
        waba_id=_digits(15),
        display_phone_number=f"1555{_digits(7)}",  # 555: no number that somebody has
        token=f"EAA{secrets.token_hex(24)}",
    )


def _passwords(names: Iterable[str] = SERVICES) -> dict[str, str]:
    return {name: secrets.token_urlsafe(24) for name in names}


def _pair() -> KeyPair:
    private, public = new_key()
    return KeyPair(private=private, public=public)


class StackSecrets(BaseModel):
    """By service name where there is one for each service. Never shown."""

    model_config = ConfigDict(frozen=True)

    platform_passwords: dict[str, str] = Field(default_factory=_passwords, repr=False)
    tenant_passwords: dict[str, str] = Field(default_factory=_passwords, repr=False)
    signing_keys: dict[str, KeyPair] = Field(default_factory=lambda: {name: _pair() for name in SERVICES}, repr=False)
    key_ring: str = Field(default_factory=KeyRing.new, repr=False)
    app_secret: str = Field(default_factory=lambda: secrets.token_hex(16), repr=False)
    verify_token: str = Field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)
    demo_number: DemoNumber = Field(default_factory=_demo_number)

    @classmethod
    def load(cls, path: Path) -> Self:
        """The kept ones, completed with what a newer release needs.

        Raises:
            SecretsBroken: the file is there, but unreadable.
        """
        try:
            kept = path.read_text()
        except FileNotFoundError:
            kept = "{}"
        try:
            found = cls.model_validate_json(kept)
        except ValidationError as error:
            fields = ", ".join(sorted({".".join(str(p) for p in e["loc"]) or "the file" for e in error.errors(include_input=False)}))
            raise SecretsBroken(
                f"{path} is damaged ({fields}). Restore it from a backup: the databases cannot be opened without it"
            ) from None
        complete = found.model_copy(
            update={
                "platform_passwords": {**_passwords(), **found.platform_passwords},
                "tenant_passwords": {**_passwords(), **found.tenant_passwords},
                "signing_keys": {**{n: _pair() for n in SERVICES if n not in found.signing_keys}, **found.signing_keys},
            }
        )
        text = complete.model_dump_json(indent=1)
        if text != kept:
            write_private(path, text)
        return complete

    def trusted_keys(self) -> dict[str, str]:
        """The public keys by issuer."""
        return {name: pair.public for name, pair in self.signing_keys.items()}
