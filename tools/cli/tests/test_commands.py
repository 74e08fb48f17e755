"""The commands against a gateway that a test plays."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from cyclopts import CycloptsError
from loquat_cli.app import build
from loquat_cli.botapi import BotApi, NoContact, NoName, NoVersion
from loquat_cli.commands import project
from loquat_cli.commands.bot import NoBot, read_bot
from loquat_cli.commands.botconfig import NotSet
from loquat_cli.commands.botdeploy import NotThat
from loquat_cli.commands.botegress import NoHost
from loquat_cli.commands.botlimits import NoLimit
from loquat_cli.commands.botsecrets import NoSecret
from loquat_cli.context import NotFound
from loquat_cli.rest import Away, Refused

from tools.cli.tests.played import KEY, SEEN, Calls, Run


async def test_projects_are_listed_and_their_names_cannot_steer_the_terminal(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    await run("project", "list")
    shown = capsys.readouterr().out
    assert "[red]odd\N{REPLACEMENT CHARACTER}[2J" in shown
    assert "failed at clone: disk" in shown
    assert "prj_4" in shown, "it stands on the second page"
    assert "\x1b[2J" not in shown


async def test_creating_a_project_waits_until_it_is_ready(run: Run, calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    await run("project", "create", "Shop")
    assert calls[-2:] == [("POST", "/v1/projects", {"name": "Shop"}), ("GET", "/v1/projects/prj_1", None)]
    assert capsys.readouterr() == ("prj_1 is ready\n", "")
    await run("project", "create", "twin ")
    assert "there is a project twin already" in capsys.readouterr().err


async def test_a_failed_project_is_shown_with_its_steps_and_tried_again(run: Run, calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    await run("project", "show", "prj_2")
    shown = capsys.readouterr().out
    assert "failed at clone: disk" in shown
    assert "ordered 2026-01-0" in shown
    await run("project", "retry", "prj_2")
    assert calls[-1] == ("POST", "/v1/projects/prj_2/retry", None)


async def test_a_project_is_deleted_only_by_who_is_sure(run: Run, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO())
    with pytest.raises(project.NotThat, match="say it with --yes"):
        await run("project", "delete", "prj_2")
    with pytest.raises(project.NotThat, match="0 to 30 days, not 31"):
        await run("project", "delete", "prj_2", "--keep-days", "31", "--yes")
    assert "DELETE" not in {method for method, _, _ in calls}
    await run("project", "delete", "prj_2", "--yes")
    assert calls[-1] == ("DELETE", "/v1/projects/prj_2", None)


async def test_configuration_is_listed_with_what_the_bot_takes_and_is_set_as_json_or_as_text(
    run: Run, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    await run("bot", "config", "list")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["KEY", "VALUE", "SET", "TYPE", "DEFAULT", "ABOUT"]
    assert lines[1] == ["menu", "str", "or", "null", "null", "the", "menu"]
    assert (lines[2][:2], lines[2][4:]) == (["room", "1.10"], ["str", "the", "room"])
    await run("bot", "config", "get", "room")
    assert capsys.readouterr().out == "1.10\n"
    for value in (["1.10", "--text"], ["-1.5"], ['{"a": [1]}'], ["half past"]):
        await run("bot", "config", "set", "room", *value)
    assert [body["value"] for method, _, body in calls if method == "PUT"] == ["1.10", -1.5, {"a": [1]}, "half past"]
    await run("bot", "config", "unset", "room")
    assert calls[-1] == ("DELETE", "/v1/projects/prj_1/bot/configuration/room", None)
    with pytest.raises(NotSet, match="'menu' is not set"):
        await run("bot", "config", "get", "menu")


async def test_a_secret_comes_from_standard_input_and_is_never_shown(
    run: Run, calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO("line one\nline two\n"))
    await run("bot", "secrets", "set", "bank")
    assert calls[-1][2] == {"value": "line one\nline two"}
    await run("bot", "secrets", "list")
    await run("bot", "secrets", "unset", "bank")
    shown = capsys.readouterr()
    assert "bank" in shown.out
    assert "line" not in shown.out + shown.err
    for given, said in (("", "no bytes; 1 to 8192"), ("ü" * 4097, "too many bytes; 1 to 8192"), ("\udcff", "no UTF-8")):
        monkeypatch.setattr("sys.stdin", StringIO(given))
        with pytest.raises(NoSecret, match=said):
            await run("bot", "secrets", "set", "bank")
    with pytest.raises(CycloptsError):
        await run("bot", "secrets", "set", "bank", "on-the-command-line")


async def test_schedules_are_listed_turned_run_and_looked_back_upon(run: Run, calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    await run("bot", "schedules", "list")
    assert capsys.readouterr().out.splitlines()[1].split() == ["daily", "0", "9", "*", "*", "*", "Europe/Berlin", "on", "once"]
    await run("bot", "schedules", "off", "daily")
    await run("bot", "schedules", "on", "daily")
    await run("bot", "schedules", "run", "daily")
    base = "/v1/projects/prj_1/bot/schedules/daily"
    assert calls[1:] == [("PATCH", base, {"active": False}), ("PATCH", base, {"active": True}), ("POST", base + "/runs", None)]
    capsys.readouterr()
    await run("bot", "schedules", "history", "daily")
    shown = capsys.readouterr().out
    assert shown.index("e1") < shown.index("e2")
    assert "open" in shown


@pytest.mark.parametrize("words", [("config", "unset", ".."), ("secrets", "unset", "."), ("schedules", "off", "")])
async def test_a_name_that_would_lead_elsewhere_is_none(run: Run, calls: Calls, words: tuple[str, ...]) -> None:
    with pytest.raises(NoName, match="is no name of a"):
        await run("bot", *words)
    assert calls == []


async def test_a_bots_text_files_are_deployed_without_what_is_hidden(run: Run, calls: Calls, tmp_path: Path) -> None:
    for name in ("bot.py", "loquat.toml", "texts/de.py", ".git/config", "__pycache__/bot.pyc"):
        (tmp_path / "bot" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bot" / name).write_text(name)
    await run("bot", "deploy", str(tmp_path / "bot"), "-m", "first")
    sent = calls[-1][2]
    assert sent == {"files": {n: n for n in ("bot.py", "loquat.toml", "texts/de.py")}, "message": "first"}


async def test_a_refused_bot_is_told_with_file_and_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("from loquat import Bot\nbot = Bot(\n")
    with pytest.raises(Refused, match=r"^The bot cannot be deployed: invalid syntax \(file bot.py, line 2\)$"):
        await run("bot", "deploy", str(tmp_path), "--project", "prj_3")


async def test_all_that_speaks_against_a_deployment_is_told_with_advice(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("x = 1\n")
    with pytest.raises(Refused) as refused:
        await run("bot", "deploy", str(tmp_path), "--project", "prj_4")
    assert str(refused.value).split("\n") == [
        "The bot was not deployed",
        "  - no table",
        "    create it first",
        "  - no state",
        "      File bot.py",
        "      KeyError",
        "    mend it",
        "  Mend it, or deploy with force",
    ]


async def test_a_canary_of_a_saved_version_is_deployed_by_its_first_characters(
    run: Run, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    await run("bot", "deploy", "--version", "ababab", "--canary", "10%", "--force", "-m", "try")
    assert calls[-1][2] == {"message": "try", "force": True, "canary": 10, "open": False, "version": "ab" * 32}
    assert "This version cannot run: nobody is answered until the next deployment" in capsys.readouterr().err
    await run("bot", "rollback", "-m", "oh")
    assert calls[-1] == ("POST", "/v1/projects/prj_1/bot/rollback", {"message": "oh"})


async def test_a_bot_is_paused_and_resumed_and_it_is_said_that_it_answers_nobody(
    run: Run, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, answers in (("pause", False), ("resume", True)):
        await run("bot", command, "-m", "why")
        assert calls[-1] == ("POST", f"/v1/projects/prj_1/bot/{command}", {"message": "why"})
        assert ("answers nobody" in capsys.readouterr().out) is not answers
    await run("bot", "pause", "--project", "Demo")
    assert "until loquat bot resume --project Demo\n" in capsys.readouterr().out


async def test_test_contacts_are_named_by_their_phone_number(run: Run, calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    await run("bot", "testers")
    assert capsys.readouterr().out == "c9 draft\n"
    await run("bot", "testers", "+49 15", "--version", "ababab")
    assert calls[-1][2]["testers"] == {"c9": "draft", "c1": "ab" * 32}
    await run("bot", "testers", "--clear", "-m", "done")
    assert calls[-1][2] == {"testers": {}, "message": "done"}
    with pytest.raises(NoContact, match=r"no contact has the number \+77"):
        await run("bot", "testers", "+77")


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (["--version", "abab", "--canary", "5"], NoVersion, "at least 6 characters"),
        (["--version", "ffffff"], NoVersion, "no version begins with 'ffffff'"),
        (["--version", "ababab", "--draft"], NotThat, "one of the three"),
        (["--draft", "--canary", "100%"], NotThat, "from 1% to 99%"),
        (["--draft", "--open-conversations"], NotThat, "belongs to --canary"),
    ],
)
async def test_options_that_make_no_sense_are_refused_in_words(run: Run, words: list[str], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        await run("bot", "deploy", *words)


def test_a_refusal_says_everything_once() -> None:
    errors = [{"field": "query.limit", "message": "too large"}, {"field": "body.name", "message": "too long"}]
    refused = Refused(422, {"status": 422, "code": "x", "title": "Not valid", "detail": "query.limit: too large", "errors": errors})
    assert str(refused) == "Not valid: query.limit: too large\n  body.name: too long"
    told = {"status": 422, "code": "x", "title": "Refused", "detail": "bot.py, line 1: never closed", "file": "bot.py", "line": 1}
    assert str(Refused(422, told)) == "Refused: bot.py, line 1: never closed"
    advised = {"status": 422, "code": "x", "title": "The bot does not take this", "detail": "room: a text", "advice": "give a text"}
    assert str(Refused(422, advised)) == "The bot does not take this: room: a text\n  give a text"
    assert str(Refused(502, "<html>")) == "It answered with status 502"


async def test_a_folder_that_is_no_bot_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(NoBot, match=r"there is no bot\.py"):
        read_bot(tmp_path)
    (tmp_path / "bot.py").write_bytes(b"\xff\xfe")
    with pytest.raises(NoBot, match="is no UTF-8 text"):
        read_bot(tmp_path)


async def test_a_link_to_what_is_not_the_bots_is_not_followed(tmp_path: Path) -> None:
    folder, secret = tmp_path / "bot", tmp_path / "secret"
    folder.mkdir()
    (folder / "bot.py").write_text("x = 1\n")
    (folder / "same.py").symlink_to("bot.py")
    assert read_bot(folder) == {"bot.py": "x = 1\n", "same.py": "x = 1\n"}
    secret.write_text("mine")
    (folder / "a.txt").symlink_to(secret)
    with pytest.raises(NoBot, match=r"a\.txt is a link that leads out of"):
        read_bot(folder)


async def test_a_bots_log_is_shown_with_the_newest_last(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    await run("bot", "logs")
    shown = capsys.readouterr().out
    assert shown.index("one") < shown.index("two")


async def test_an_event_that_failed_alike_each_time_is_shown_once(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    await run("bot", "runs", "--failed")
    shown = capsys.readouterr().out
    assert shown.endswith("\ne1 KeyError: 'x' (3 tries)\nline 7\n\ne2 KeyError: 'x'\nline 7\n")


async def test_hosts_are_added_to_those_that_are_open_and_taken_from_them(
    run: Run, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    await run("bot", "egress", "show")
    assert capsys.readouterr().out == "api.example.com\n*.example.org\n"
    await run("bot", "egress", "allow", "a.example", "*.example.org")
    await run("bot", "egress", "deny", "API.example.com")
    sent = [body["hosts"] for method, _, body in calls if method == "PUT"]
    assert sent == [["api.example.com", "*.example.org", "a.example"], ["*.example.org"]]
    with pytest.raises(NoHost, match=r"not among what is allowed: b\.example; nothing was changed"):
        await run("bot", "egress", "deny", "b.example")
    with pytest.raises(NoHost, match="Name at least one"):
        await run("bot", "egress", "allow")
    capsys.readouterr()
    await run("bot", "egress", "destinations")
    assert capsys.readouterr().out.splitlines()[1].split()[2:] == ["a.example", "443", "host", "3", "0", "B", "0", "B"]


async def test_limits_are_shown_beside_the_plans_set_and_given_back(run: Run, calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    await run("bot", "limits", "show")
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["LIMIT", "NOW", "PLAN", "LEAST", "MOST"],
        ["call_seconds", "20", "10", "0.5", "60"],
        ["threads", "8", "8", "8", "8"],
    ]
    await run("bot", "limits", "set", "call_seconds=2.5", "memory_bytes=1000")
    await run("bot", "limits", "unset", "threads", "messages")
    assert [body for _, _, body in calls[1:]] == [{"call_seconds": 2.5, "memory_bytes": 1000}, {"threads": None, "messages": None}]
    for odd in ("threads", "threads=many", "threads=true", "threads=Infinity", "=1"):
        with pytest.raises(NoLimit, match="a limit is NAME=NUMBER"):
            await run("bot", "limits", "set", odd)


async def test_consumers_that_do_not_answer_are_named_beside_the_dead_letters(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    await run("dead", "list")
    assert "connector does not answer" in capsys.readouterr().err


async def test_a_dead_letter_is_discarded_with_its_reason(run: Run, calls: Calls) -> None:
    await run("dead", "discard", "bot-runner.7", "--reason", "a test")
    assert calls[-1] == ("POST", "/v1/projects/prj_1/dead-letters/bot-runner.7/discard", {"reason": "a test"})


async def test_a_number_is_connected_to_the_project_of_that_name(run: Run, calls: Calls) -> None:
    await run("number", "connect", "123", "--waba", "456", "--token", "EAAx", "--project", "Demo")
    assert calls[-1] == ("POST", "/v1/projects/prj_1/numbers", {"phone_number_id": "123", "waba_id": "456", "token": "EAAx"})
    await run("number", "disconnect", "123", "--project", "Demo")
    assert calls[-1] == ("DELETE", "/v1/projects/prj_1/numbers/123", None)


@pytest.mark.parametrize(("name", "words"), [("twin", "2 projects are called 'twin'"), ("nobody", "there is no project 'nobody'")])
async def test_a_name_that_is_none_or_several_projects_is_refused(run: Run, name: str, words: str) -> None:
    with pytest.raises(NotFound, match=words):
        await run("bot", "logs", "--project", name)


async def test_a_loquat_elsewhere_is_asked_with_the_key_of_the_environment(
    run: Run, gateway: TestServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOQUAT_HOME", "/nowhere")
    monkeypatch.setenv("LOQUAT_URL", str(gateway.make_url("")))
    with pytest.raises(NotFound, match="LOQUAT_API_KEY is not"):
        await run("project", "list")
    monkeypatch.setenv("LOQUAT_API_KEY", KEY)
    await run("project", "list")
    assert "prj_1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "group", ["project", "number", "bot", "dead", "bot config", "bot egress", "bot limits", "bot secrets", "bot schedules"]
)
def test_each_command_of_a_group_says_what_it_is_for(group: str) -> None:
    found = build([*group.split(), "--help"])
    for word in group.split():
        found = found[word]
    commands = found.resolved_commands()
    listed = {name: command.help.strip() for name, command in commands.items() if not name.startswith("-")}
    assert listed
    assert all(listed.values()), listed


async def test_without_a_loquat_one_is_told_how_to_get_one(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOQUAT_HOME", str(tmp_path / "empty"))
    with pytest.raises(NotFound, match="Start one with `loquat up`"):
        await run("project", "list")


async def test_a_gateway_that_is_away_is_told_in_words(run: Run, tmp_path: Path) -> None:
    kept = json.loads((tmp_path / "owner.json").read_text())
    (tmp_path / "owner.json").write_text(json.dumps({**kept, "gateway": "http://127.0.0.1:1"}))
    with pytest.raises(Away, match=r"does not answer .* is Loquat running"):
        await run("project", "list")


async def test_the_status_of_an_empty_folder_says_so_with_exit_code_3(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOQUAT_HOME", str(tmp_path / "empty"))
    with pytest.raises(SystemExit) as left:
        await run("status")
    assert left.value.code == 3
    assert "Nothing runs in" in capsys.readouterr().out


async def test_a_bot_is_tried_out_and_the_answer_says_where_and_how_to_go_on(
    run: Run, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    await run("bot", "preview", "hi", "--version", "abcdef")
    shown = capsys.readouterr()
    assert shown.out == "Tea?\n  [Yes] --button yes\n"
    assert "in a throw-away copy of the database: handled, start -> asked" in shown.err
    assert re.search(r"held: people\ntimers: late at 2026-01-0\d \d\d:\d\d:05\nrows: orders 2\n", shown.err)
    body = {"message": {"text": "hi"}, "draft": False, "database": "clone", "version": "abcdef" + "0" * 58}
    assert calls[-1] == ("POST", "/v1/projects/prj_1/bot/preview", body)
    await run("bot", "preview", "--button", "yes", "--draft", "--on", SEEN["preview_id"])
    assert calls[-1][2] == {"message": {"button": "yes"}, "draft": True, "preview_id": SEEN["preview_id"]}
    with pytest.raises(NotThat, match="one of the three"):
        await run("bot", "preview")


async def test_a_preview_that_comes_a_moment_too_soon_is_made_a_moment_later_and_a_failure_is_told_by_the_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tries: list[str] = []

    async def post(_api: BotApi, path: str, _body: object) -> Any:
        tries.append(path)
        if len(tries) == 1:
            raise Refused(429, {"status": 429, "code": "too_often", "title": "That is one copy too soon"})
        return SEEN | {"outcome": "BotError", "error": "KeyError: 'x'", "trace": "line 7"}

    monkeypatch.setattr(BotApi, "post", post)
    monkeypatch.setattr("loquat_cli.commands.botpreview._NEXT", 0)
    with pytest.raises(SystemExit) as left:
        await run("bot", "preview", "hi")
    assert left.value.code == 1
    assert len(tries) == 2
    assert "BotError: KeyError: 'x'\nline 7\n" in capsys.readouterr().err
