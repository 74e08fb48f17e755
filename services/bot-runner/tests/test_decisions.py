"""What bot-runner decides without touching anything: bundles, outcomes, what a bot's word is worth."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loquat_bot_runner.domain.bundle import LARGEST, BundleRefused, checked
from loquat_bot_runner.domain.holding import Conduct, holding, sending
from loquat_bot_runner.domain.outcomes import after
from loquat_bot_runner.domain.replies import checked as reply_checked
from loquat_bot_runner.errors import (
    BotError,
    CallFailed,
    DatabaseLost,
    DoesNotStart,
    OutOfMemory,
    ProjectDatabaseAway,
    ProtocolViolated,
    SlowStart,
    Superseded,
    TimedOut,
)
from loquat_common.bus.port import Dead, Defer, Retry
from loquat_events.conversations import HoldOrdered, SendOrdered

GOOD = {"bot.py": "from loquat import Bot\nbot = Bot()\n", "loquat.toml": 'name = "x"\n'}


def test_a_version_is_its_content_whatever_the_order_of_its_files() -> None:
    assert checked(GOOD) == checked(dict(reversed(GOOD.items())))
    assert checked(GOOD) != checked({**GOOD, "bot.py": GOOD["bot.py"] + "#"})
    assert len(checked(GOOD)) == 64


@pytest.mark.parametrize(
    ("files", "file", "line", "reason"),
    [
        ({"bot.py": "x = (\n"}, "bot.py", 1, "never closed"),
        ({**GOOD, "more.py": "a = 1\nb = = 2\n"}, "more.py", 2, "invalid syntax"),
        ({**GOOD, "loquat.toml": "name = "}, "loquat.toml", None, "Invalid value"),
        ({"other.py": ""}, "bot.py", None, "no bot.py"),
        ({**GOOD, "big.txt": "x" * LARGEST}, None, None, "bytes"),
        ({**GOOD, **{f"f{n}.txt": "" for n in range(200)}}, None, None, "200 are the limit"),
        ({**GOOD, "half.txt": "\ud800"}, "half.txt", None, "no valid text"),
    ],
)
def test_what_cannot_be_deployed_is_refused_with_its_place(files: dict[str, str], file: str | None, line: int | None, reason: str) -> None:
    with pytest.raises(BundleRefused, match=reason) as refused:
        checked(files)
    assert (refused.value.file, refused.value.line) == (file, line)


@pytest.mark.promise("P4")
@pytest.mark.parametrize("path", ["/etc/passwd", "../x.py", "a/../../x", "a//b", "./x", "a\\b", "", "a\0b", "x" * 300, "a/"])
def test_a_path_that_leads_out_of_the_bundle_is_refused(path: str) -> None:
    with pytest.raises(BundleRefused, match="stay inside the bundle"):
        checked({**GOOD, path: ""})


@pytest.mark.parametrize(
    ("failure", "attempts", "kind"),
    [
        (BotError("x"), 0, Retry),
        (BotError("x"), 1, Retry),
        (BotError("x"), 2, Dead),
        (TimedOut("x"), 0, Retry),
        (TimedOut("x"), 1, Dead),
        (OutOfMemory("x"), 0, Dead),
        (ProtocolViolated("x"), 0, Dead),
        (DoesNotStart("x"), 99, Defer),
        (SlowStart("x"), 99, Defer),
        (ProjectDatabaseAway("x"), 99, Defer),
        (Superseded("x"), 0, Retry),
        (DatabaseLost("x"), 6, Retry),
        (DatabaseLost("x"), 7, Dead),
    ],
)
def test_the_table_of_what_follows_a_failure(failure: CallFailed, attempts: int, kind: type) -> None:
    assert isinstance(after(failure, attempts), kind)


def test_a_failing_bots_event_becomes_a_row_after_its_first_try() -> None:
    outcome = after(BotError("x"), 0)
    assert isinstance(outcome, Retry)
    assert outcome.after > 2.0  # what an event may keep its partition


def test_an_order_of_people_is_its_own_result_and_only_a_person_takes_over() -> None:
    said = {
        "number_id": "1",
        "addresses": [{"kind": "wa_id", "value": "49"}],
        "message": {"type": "text", "text": "x"},
        "ordered_by": "anna",
    }

    def takes(project: bool, **more: Any) -> bool:
        return "hold" in sending(SendOrdered.model_validate({**said, **more}), Conduct(take_over=project))

    assert [takes(p, take_over=t) for p in (False, True) for t in (None, False, True)] == [False, False, True, True, False, True]
    assert not takes(True, sender="automation", take_over=True)
    here, there = uuid4(), uuid4()
    order = HoldOrdered.model_validate({**said, "conversation_id": here, "holder": "person", "resolved": True})
    assert holding(order, here)["hold"] == {"kind": "person", "who": "anna", "seconds": None, "note": None}
    assert holding(order, there) == {"replies": [], "ordered_by": "anna"}


def deep(levels: int) -> list[Any]:
    """Lists in lists."""
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


def test_words_about_an_escaped_nul_are_words() -> None:
    assert reply_checked({"replies": [{"type": "text", "text": "\\u0000"}]})["replies"][0]["text"] == "\\u0000"


@pytest.mark.promise("P4")
@pytest.mark.parametrize(
    "result",
    [
        {"replies": "no"},
        {"replies": [{"type": "text", "text": "x"}] * 51},
        {"replies": [{"type": "launch"}]},
        {"replies": [], "state": ""},
        {"replies": [], "state": "x" * 61},
        {"replies": [], "end": "yes"},
        {"replies": [], "outbox": []},
        {"replies": [], "hold": {"kind": "bot"}},
        {"replies": [], "hold": {"seconds": 0}},
        {"replies": [], "hold": {"note": "x" * 1001}},
        {"replies": [], "ask": "name?"},
        {"replies": [], "ask": {"answers": "x" * 70_000}},
        {"replies": [], "joins": ["x"]},
        {"replies": [], "later": "soon"},
        {"replies": [{"type": "text", "text": "x" * 5000}]},
        {"replies": [{"type": "image", "content": {"x": "y" * 300_000}}]},
        {"replies": [], "state": "a\0b"},
        {"replies": [b"x"]},
        {"replies": [], "contact": {"attributes": {"at": datetime.now(UTC)}}},
        {"replies": [], "contact": {"attributes": {"x": float("nan")}}},
        {"replies": [], "contact": {"attributes": {"x": deep(2_000)}}},
        {"replies": [], "timers": [{"name": "x", "at": "2026-02-30T00:00:00+00:00"}]},
    ],
)
def test_a_result_that_the_sdk_would_not_make_breaks_the_protocol(result: dict[str, Any]) -> None:
    with pytest.raises(ProtocolViolated):
        reply_checked(result)


@given(
    st.dictionaries(
        st.sampled_from(["replies", "state", "end", "hold", "ask", "joins", "later", "x"]),
        st.none()
        | st.booleans()
        | st.text()
        | st.binary()
        | st.floats()
        | st.datetimes()
        | st.lists(st.dictionaries(st.text(), st.text())),
    )
)
def test_whatever_a_bot_says_is_a_result_or_a_violation(result: dict[str, Any]) -> None:
    try:
        made = reply_checked(result)
    except ProtocolViolated:
        return
    assert made.keys() <= {"replies", "state", "end", "contact", "hold", "ask", "joins", "later"}
