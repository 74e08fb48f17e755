"""Secrets at rest: envelope encryption. Each secret has a key of its own, which a ring of key-encryption keys wraps."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from pydantic import BaseModel, SecretStr, ValidationError

_VERSION: Final = 1
_KEY: Final = 32  # bytes: AES-256
_WRAPPED: Final = _KEY + 8  # RFC 3394 adds 8
_NONCE: Final = 12
_LONGEST_ID: Final = 255  # its length is one byte


class SealBroken(Exception):
    """The blob was not sealed for this context, or its key is not in the ring."""


class _Ring(BaseModel):
    current: str
    keys: dict[str, str]


class KeyRing:
    """Seals and opens. The context (such as `project/<id>/bot`) is authenticated: a blob moved to another place does not open.

    A blob: version, length of the key's id, the id, the wrapped key, nonce, ciphertext and tag.
    """

    def __init__(self, current: str, keys: Mapping[str, bytes]) -> None:
        if current not in keys:
            raise ValueError("the key ring's current key is not among its keys")
        if any(len(k) != _KEY for k in keys.values()):
            raise ValueError(f"every key of the key ring has {_KEY} bytes")
        if any(not 0 < len(i.encode()) <= _LONGEST_ID for i in keys):
            raise ValueError("an id of the key ring has 1 to 255 bytes")
        self._current, self._keys = current, dict(keys)

    def __repr__(self) -> str:
        return f"KeyRing(current={self._current!r}, keys={sorted(self._keys)})"

    @classmethod
    def from_json(cls, secret: SecretStr | str) -> KeyRing:
        """From `{"current": id, "keys": {id: base64}}`.

        Raises:
            ValueError: not such a document. The message never holds its content.
        """
        text = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
        try:
            ring = _Ring.model_validate_json(text)
            keys = {i: base64.b64decode(k, validate=True) for i, k in ring.keys.items()}
        except (ValidationError, ValueError):
            raise ValueError('a key ring is {"current": id, "keys": {id: base64 of 32 bytes}}') from None
        return cls(ring.current, keys)

    @staticmethod
    def new() -> str:
        """The JSON of a ring with one fresh key."""
        return _Ring(current="k1", keys={"k1": base64.b64encode(secrets.token_bytes(_KEY)).decode()}).model_dump_json()

    def seal(self, plaintext: bytes, context: str) -> bytes:
        """Encrypts for one place."""
        key, nonce, name = secrets.token_bytes(_KEY), secrets.token_bytes(_NONCE), self._current.encode()
        sealed = AESGCM(key).encrypt(nonce, plaintext, context.encode())
        return bytes([_VERSION, len(name)]) + name + aes_key_wrap(self._keys[self._current], key) + nonce + sealed

    def open(self, blob: bytes, context: str) -> bytes:
        """Decrypts.

        Raises:
            SealBroken: another context, an unknown key, or a changed blob.
        """
        try:
            if blob[0] != _VERSION:
                raise SealBroken(context)
            at = 2 + blob[1]
            kek = self._keys[blob[2:at].decode()]
            key = aes_key_unwrap(kek, blob[at : at + _WRAPPED])
            at += _WRAPPED
            return AESGCM(key).decrypt(blob[at : at + _NONCE], blob[at + _NONCE :], context.encode())
        except (InvalidTag, InvalidUnwrap, KeyError, IndexError, ValueError):
            raise SealBroken(context) from None
