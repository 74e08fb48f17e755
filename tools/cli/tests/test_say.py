"""How a bot's messages look on a terminal, and where `say` sends to."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from loquat_cli.app import build
from loquat_cli.commands.say import lines
from loquat_cli.owner import Owner


class Simulator:
    """Answers each message with what a test laid ready."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.replies: list[dict[str, Any]] = []
        self.asked: list[dict[str, str]] = []

    async def send(self, request: web.Request) -> web.Response:
        self.sent.append(await request.json())
        return web.json_response({"wamid": "wamid.1"}, status=201)

    async def got(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        after = int(request.query.get("after", "0"))
        if not self.sent:
            return web.json_response({"messages": [], "last": 3})
        found = [r for r in self.replies if r["n"] > after]
        return web.json_response({"messages": found, "last": found[-1]["n"] if found else after})


def reply(n: int, text: str | None, kind: str = "text", **raw: Any) -> dict[str, Any]:
    return {"n": n, "type": kind, "text": text, "raw": raw}


@pytest.fixture
async def simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Simulator]:
    played, app = Simulator(), web.Application()
    app.router.add_post("/api/messages", played.send)
    app.router.add_get("/api/messages", played.got)
    server = TestServer(app)
    await server.start_server()
    known = dict.fromkeys(("email", "password", "api_key", "project_id", "app_secret", "verify_token"), "x")
    owner = {**known, "gateway": "http://127.0.0.1:1", "simulator": str(server.make_url("")), "phone_number_id": "123"}
    Owner.model_validate(owner).save(tmp_path / "owner.json")
    monkeypatch.setenv("LOQUAT_HOME", str(tmp_path))
    yield played
    await server.close()


async def say(*words: str) -> None:
    await build().run_async(("say", *words), result_action="return_value", exit_on_error=False)


async def test_what_a_contact_says_goes_to_the_demo_number_and_only_new_replies_are_shown(
    simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator.replies = [reply(3, "of yesterday"), reply(4, "one"), reply(6, "two")]
    await say("hello", "--from", "4917")
    assert simulator.sent == [{"phone_number_id": "123", "from": "4917", "type": "text", "text": "hello"}]
    assert capsys.readouterr().out == "one\ntwo\n"
    assert simulator.asked[-1]["after"] == "6"


async def test_silence_is_told_with_exit_code_1_and_where_to_look(simulator: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        await say("hello", "--wait", "0.1")
    assert left.value.code == 1
    assert len(simulator.sent) == 1
    assert "no reply within 0.1 s" in capsys.readouterr().err


def test_buttons_and_list_rows_are_shown_below_the_text() -> None:
    buttons = reply(1, "What?", "interactive", action={"buttons": [{"type": "reply", "reply": {"id": "tea", "title": "Tea"}}]})
    rows = [{"id": "a", "title": "Haircut", "description": "30 minutes"}, {"id": "b", "title": "Shave"}]
    choice = reply(2, "Which?", "interactive", action={"button": "Services", "sections": [{"rows": rows}]})
    assert list(lines(buttons)) == ["What?", "  [ Tea ]"]
    assert list(lines(choice)) == ["Which?", "  - Haircut: 30 minutes", "  - Shave"]


def test_a_message_without_text_shows_its_type() -> None:
    assert list(lines(reply(1, None, "image", link="https://example.org/cat.jpg"))) == ["[image]"]
