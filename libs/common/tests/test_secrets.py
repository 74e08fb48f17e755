"""Secrets: sealed for one place, signed for one request, never in a log line."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loquat_common.crypto import KeyRing, SealBroken
from loquat_common.failpoints import FailpointError, Failpoints
from loquat_common.logs import configure, get_logger, redact
from loquat_common.settings import ServiceSettings
from loquat_common.tokens import LIFE, Actor, Signer, TokenRefused, Verifier, new_key
from pydantic import SecretStr, ValidationError

TEXT = st.text(st.characters(codec="utf-8"), max_size=50)
RING = KeyRing.from_json(KeyRing.new())


@pytest.mark.promise("P8")
@given(st.binary(max_size=200), TEXT, TEXT)
def test_a_sealed_secret_opens_in_its_own_place_alone(secret: bytes, place: str, other: str) -> None:
    blob = RING.seal(secret, place)
    assert RING.open(blob, place) == secret
    if other != place:
        with pytest.raises(SealBroken):
            RING.open(blob, other)


@given(st.binary(max_size=150))
def test_bytes_that_nobody_sealed_never_open(blob: bytes) -> None:
    with pytest.raises(SealBroken):
        RING.open(blob, "x")


def test_a_rotated_ring_opens_what_the_old_key_sealed_and_seals_with_the_new_one() -> None:
    old = KeyRing("a", {"a": b"a" * 32})
    new = KeyRing("b", {"a": b"a" * 32, "b": b"b" * 32})
    assert new.open(old.seal(b"s", "c"), "c") == b"s"
    with pytest.raises(SealBroken):
        old.open(new.seal(b"s", "c"), "c")


@pytest.mark.promise("P8")
def test_a_ring_shows_no_key_in_repr_or_error() -> None:
    assert "aaaa" not in repr(KeyRing("a", {"a": b"a" * 32}))
    with pytest.raises(ValueError, match="a key ring is") as error:
        KeyRing.from_json(SecretStr('{"current": "a", "keys": {"a": "c2VjcmV0"}'))
    assert "c2VjcmV0" not in str(error.value)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_token_is_good_for_its_request_and_for_a_minute() -> None:
    private, public = new_key()
    clock = Clock()
    actor = Actor("user", "u", "o", "p", frozenset({"a"}))
    token = Signer("gateway", private, clock).sign(actor, "connector", "GET", "/x")
    verifier = Verifier({"gateway": public}, "connector", clock)
    assert verifier.verify(token, "GET", "/x") == actor
    for method, path in (("POST", "/x"), ("GET", "/y")):
        with pytest.raises(TokenRefused):
            verifier.verify(token, method, path)
    with pytest.raises(TokenRefused):
        Verifier({"gateway": public}, "provisioner", clock).verify(token, "GET", "/x")
    clock.now += LIFE
    with pytest.raises(TokenRefused):
        verifier.verify(token, "GET", "/x")


@pytest.mark.promise("P4")
def test_no_service_but_the_gateway_speaks_for_users_and_none_for_another_service() -> None:
    private, public = new_key()
    verifier = Verifier({"bot-runner": public}, "provisioner")
    signer = Signer("bot-runner", private)
    for actor in (Actor("user", "u"), Actor("service", "connector")):
        with pytest.raises(TokenRefused):
            verifier.verify(signer.sign(actor, "provisioner", "GET", "/"), "GET", "/")
    assert verifier.verify(signer.sign(Actor("service", "bot-runner"), "provisioner", "GET", "/"), "GET", "/").subject == "bot-runner"


def test_a_token_of_a_key_nobody_trusts_is_refused() -> None:
    private, _ = new_key()
    _, public = new_key()
    token = Signer("gateway", private).sign(Actor("user", "u"), "a", "GET", "/")
    with pytest.raises(TokenRefused):
        Verifier({"gateway": public}, "a").verify(token, "GET", "/")
    with pytest.raises(TokenRefused):
        Verifier({"gateway": public}, "a").verify("not.a.token", "GET", "/")


@pytest.mark.promise("P8")
def test_log_lines_hold_no_secret_and_no_person() -> None:
    out = io.StringIO()
    configure("test", stream=out)
    log = get_logger()
    log.info(
        "x",
        password="hunter2",
        header="Bearer abcdef",
        nested={"api_key": "lq_1234567890abcdefgh"},
        url="postgres://u:hunter2@h/db",
        text="hello you",
    )
    log.info("y", note="key lq_1234567890abcdefgh and EAAB1234567890abcdef", amount=3, phone="+4912345")
    logging.getLogger("library").error("dsn postgres://u:hunter2@h/db")
    written = out.getvalue()
    assert written.count("\n") == 3
    for secret in ("hunter2", "abcdef", "lq_1234", "EAAB", "hello you", "4912345"):
        assert secret not in written
    assert '"amount":3' in written


def test_redacting_keeps_what_is_no_secret() -> None:
    assert redact({"partition": 3, "names": ["a", "b"]}) == {"partition": 3, "names": ["a", "b"]}


def test_failpoints_fire_once_and_are_refused_outside_tests(tmp_path: Path) -> None:
    points = Failpoints(tmp_path)
    (tmp_path / "gateway.before_publish").write_text("raise")
    points.hit("gateway.after_publish")
    with pytest.raises(FailpointError):
        points.hit("gateway.before_publish")
    points.hit("gateway.before_publish")
    with pytest.raises(ValidationError, match="LOQUAT_FAILPOINTS_DIR is refused"):
        ServiceSettings(platform_dsn=SecretStr("x"), failpoints_dir=tmp_path)
