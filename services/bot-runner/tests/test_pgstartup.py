"""What a client says before it is let in, whatever it is; and how fast it may go on."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loquat_bot_runner.domain import pgstartup
from loquat_bot_runner.domain.pace import Pace
from loquat_bot_runner.domain.pgstartup import Cancel, Encryption, Startup, StartupRefused

WORD = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


def packet(*words: str, version: int = 196_608) -> bytes:
    body = struct.pack("!I", version) + b"".join(w.encode() + b"\0" for w in words) + (b"\0" if words else b"")
    return struct.pack("!I", len(body) + 4) + body


@given(st.binary(max_size=200), st.sampled_from([b"", struct.pack("!I", 60), packet("user", "a")[:8], struct.pack("!II", 16, 80_877_102)]))
def test_any_bytes_are_a_packet_a_part_of_one_or_refused(data: bytes, head: bytes) -> None:
    buffer = bytearray(head + data)
    before = len(buffer)
    try:
        found = pgstartup.read(buffer)
    except StartupRefused:
        return
    if found is None:
        assert before < pgstartup.LARGEST
        assert len(buffer) == before
    else:
        assert len(buffer) < before


@given(st.binary(max_size=60), st.sampled_from([b"", b"p", b"p\0\0\0\x09"]))
def test_any_bytes_are_a_password_a_part_of_one_or_refused(data: bytes, head: bytes) -> None:
    buffer = bytearray(head + data)
    try:
        shown = pgstartup.password(buffer)
    except StartupRefused:
        return
    assert shown is None or len(buffer) < len(head + data)


@given(
    WORD,
    WORD,
    st.dictionaries(WORD.filter(lambda w: w not in {"user", "database", "replication", "client_encoding"}), WORD, max_size=5),
    st.data(),
)
def test_a_startup_is_read_however_it_comes_in_pieces(user: str, database: str, settings: dict[str, str], data: st.DataObject) -> None:
    sent = packet("user", user, "database", database, *(w for pair in settings.items() for w in pair))
    cut = data.draw(st.integers(0, len(sent) - 1))
    buffer = bytearray(sent[:cut])
    assert pgstartup.read(buffer) is None
    buffer += sent[cut:] + b"what follows"
    found = pgstartup.read(buffer)
    assert isinstance(found, Startup)
    assert (found.user, found.database) == (user, database)
    assert dict(found.settings) == {k: v for k, v in settings.items() if not k.startswith("_pq_.")}
    assert buffer == b"what follows"


def test_a_database_that_is_not_named_is_the_users() -> None:
    found = pgstartup.read(bytearray(packet("user", "ann")))
    assert found == Startup("ann", "ann", {})


@pytest.mark.parametrize("value", ["on", "true", "1", "database", "yes"])
def test_replication_is_refused_in_all_its_words(value: str) -> None:
    with pytest.raises(StartupRefused, match="replication"):
        pgstartup.read(bytearray(packet("user", "ann", "replication", value)))


def test_requests_without_a_startup_are_known() -> None:
    assert pgstartup.read(bytearray(struct.pack("!II", 8, 80_877_103))) == Encryption()
    assert pgstartup.read(bytearray(struct.pack("!IIII", 16, 80_877_102, 7, 9))) == Cancel(7, 9)


def test_a_refusal_cannot_be_used_to_say_more() -> None:
    said = pgstartup.refusal("28000", "x\0Mforged\0")
    assert said.count(b"\0M") == 1
    assert struct.unpack("!I", said[1:5])[0] == len(said) - 1


def test_who_overdraws_waits_until_it_is_paid_and_nobody_saves_up_more_than_a_burst() -> None:
    pace = Pace(rate=10, burst=5)
    assert [pace.spend(1, 0.0) for _ in range(5)] == [0, 0, 0, 0, 0]
    assert pace.spend(1, 0.0) == pytest.approx(0.1)
    assert pace.spend(1, 0.1) == pytest.approx(0.1)
    assert pace.spend(5, 1000.0) == 0
    assert pace.spend(1, 1000.0) == pytest.approx(0.1)
    assert pace.spend(0, 999.0) == pytest.approx(0.1), "a clock that goes back pays nothing"
