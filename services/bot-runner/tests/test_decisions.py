"""What bot-runner decides without touching anything: bundles, outcomes, what a bot's word is worth."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loquat_bot_runner.domain.bundle import LARGEST, BundleRefused, checked
from loquat_bot_runner.domain.outcomes import after, too_old
from loquat_bot_runner.domain.replies import checked as reply_checked
from loquat_bot_runner.errors import (
    BotError,
    CallFailed,
    DoesNotStart,
    OutOfMemory,
    ProjectDatabaseAway,
    ProtocolViolated,
    Superseded,
    TimedOut,
)
from loquat_common.bus.port import Dead, Defer, Retry

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
        (ProjectDatabaseAway("x"), 99, Defer),
        (Superseded("x"), 0, Retry),
    ],
)
def test_the_table_of_what_follows_a_failure(failure: CallFailed, attempts: int, kind: type) -> None:
    assert isinstance(after(failure, attempts), kind)


def test_a_failing_bots_event_becomes_a_row_after_its_first_try() -> None:
    outcome = after(BotError("x"), 0)
    assert isinstance(outcome, Retry)
    assert outcome.after > 2.0  # what an event may keep its partition


def test_a_message_older_than_a_day_is_not_answered_unless_a_person_asks_for_it() -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    assert too_old(now - timedelta(hours=25), now, redriven=False)
    assert not too_old(now - timedelta(hours=23), now, redriven=False)
    assert not too_old(now - timedelta(days=9), now, redriven=True)


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
        {"replies": [{"type": "text", "text": "x" * 5000}]},
        {"replies": [{"type": "image", "content": {"x": "y" * 300_000}}]},
    ],
)
def test_a_result_that_the_sdk_would_not_make_breaks_the_protocol(result: dict[str, Any]) -> None:
    with pytest.raises(ProtocolViolated):
        reply_checked(result)


@given(
    st.dictionaries(
        st.sampled_from(["replies", "state", "end", "x"]),
        st.none() | st.booleans() | st.text() | st.lists(st.dictionaries(st.text(), st.text())),
    )
)
def test_whatever_a_bot_says_is_a_result_or_a_violation(result: dict[str, Any]) -> None:
    try:
        made = reply_checked(result)
    except ProtocolViolated:
        return
    assert made.keys() <= {"replies", "state", "end", "contact"}
