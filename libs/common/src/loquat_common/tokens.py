"""Actor tokens: who asks a service, on whose behalf, for which one request. Ed25519, at most 60 seconds old."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import orjson
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from pydantic import BaseModel, SecretStr, ValidationError

LIFE: Final = 60
"""Seconds a token is good for (architecture, "Services"). Each is made for one request, so it never needs longer."""
_ALGORITHMS: Final = ["Ed25519"]


class TokenRefused(Exception):
    """The token is missing, old, forged, or for another request. The reason goes into the log, not to the caller."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks. A `user` acts within an organization and perhaps a project; a `service` speaks for itself."""

    kind: Literal["user", "service"]
    subject: str
    organization: str | None = None
    project: str | None = None
    scopes: frozenset[str] = frozenset()


class _Claims(BaseModel):
    iss: str
    aud: str
    exp: float
    htm: str
    htu: str
    kind: Literal["user", "service"]
    sub: str
    org: str | None = None
    prj: str | None = None
    scp: list[str] = []


def new_key() -> tuple[str, str]:
    """A fresh pair as JWKs in JSON: (private, public)."""
    key = OKPKey.generate_key("Ed25519")
    return _json(key.as_dict(private=True)), _json(key.as_dict(private=False))


def _json(value: Mapping[str, object]) -> str:
    return orjson.dumps(dict(value)).decode()


def _import(text: str) -> OKPKey:
    return OKPKey.import_key(orjson.loads(text))


class Signer:
    """Signs for one issuer. Only the gateway signs for users; every service may sign for itself."""

    def __init__(self, issuer: str, key: SecretStr | str, clock: Callable[[], float] = time.time) -> None:
        text = key.get_secret_value() if isinstance(key, SecretStr) else key
        self.issuer, self._key, self._clock = issuer, _import(text), clock

    def sign(self, actor: Actor, audience: str, method: str, path: str) -> str:
        """A token for one request: `method` and `path` (without the query) belong to it."""
        claims = _Claims(
            iss=self.issuer,
            aud=audience,
            exp=self._clock() + LIFE,
            htm=method,
            htu=path,
            kind=actor.kind,
            sub=actor.subject,
            org=actor.organization,
            prj=actor.project,
            scp=sorted(actor.scopes),
        )
        return jws.serialize_compact({"alg": "Ed25519"}, claims.model_dump_json(), self._key, algorithms=_ALGORITHMS)


class Verifier:
    """Checks tokens for one audience against the issuers it trusts."""

    def __init__(self, trusted: Mapping[str, str], audience: str, clock: Callable[[], float] = time.time) -> None:
        self._keys = {issuer: _import(key) for issuer, key in trusted.items()}
        self._audience, self._clock = audience, clock

    def verify(self, token: str, method: str, path: str) -> Actor:
        """Who asks.

        Raises:
            TokenRefused: not a token for this request by an issuer we trust.
        """
        claims = self._claims(token)
        now = self._clock()
        if not now < claims.exp <= now + LIFE + 5:  # 5 s: clocks of two machines differ
            raise TokenRefused("expired")
        if (claims.aud, claims.htm, claims.htu) != (self._audience, method, path):
            raise TokenRefused("for another request")
        if claims.kind == "user" and claims.iss != "gateway":
            raise TokenRefused("only the gateway speaks for users")
        if claims.kind == "service" and claims.sub != claims.iss:
            raise TokenRefused("a service speaks for itself only")
        return Actor(claims.kind, claims.sub, claims.org, claims.prj, frozenset(claims.scp))

    def _claims(self, token: str) -> _Claims:
        try:
            issuer = _Claims.model_validate_json(jws.extract_compact(token.encode()).payload).iss
            payload = jws.deserialize_compact(token, self._keys[issuer], algorithms=_ALGORITHMS).payload
            return _Claims.model_validate_json(payload)
        except (JoseError, ValidationError, KeyError, ValueError):
            raise TokenRefused("not a token of an issuer we trust") from None
