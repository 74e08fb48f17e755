"""How a bot's messages look on a terminal, and where `say` sends to."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from loquat_cli.app import build
from loquat_cli.commands.say import NoTime, lines
from loquat_cli.owner import Owner


class Simulator:
    """Answers each message with what a test laid ready."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.replies: list[dict[str, Any]] = []
        self.asked: list[dict[str, str]] = []
        self.numbers: list[dict[str, str]] = [{"phone_number_id": "123"}]

    async def send(self, request: web.Request) -> web.Response:
        message = await request.json()
        if message["phone_number_id"] not in {n["phone_number_id"] for n in self.numbers}:
            return web.json_response({"status": 404, "code": "not_found", "title": "There is no such number"}, status=404)
        self.sent.append(message)
        return web.json_response({"wamid": "wamid.1"}, status=201)

    async def add_number(self, request: web.Request) -> web.Response:
        self.numbers.append(await request.json())
        return web.json_response({}, status=201)

    async def projects(self, _request: web.Request) -> web.Response:
        return web.json_response({"items": [{"id": "prj_2", "name": "Shop"}], "next_cursor": None})

    async def connected(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {"items": [{"phone_number_id": "456", "waba_id": "789", "display_phone_number": None}], "next_cursor": None}
        )

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
    app.router.add_post("/api/numbers", played.add_number)
    app.router.add_get("/v1/projects", played.projects)
    app.router.add_get("/v1/projects/prj_2/numbers", played.connected)
    server = TestServer(app)
    await server.start_server()
    known = dict.fromkeys(("email", "password", "api_key", "project_id", "app_secret", "verify_token"), "x")
    owner = {**known, "gateway": str(server.make_url("")).rstrip("/"), "simulator": str(server.make_url("")), "phone_number_id": "123"}
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


async def test_a_number_that_the_simulator_does_not_know_is_told_to_it(simulator: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    simulator.replies = [reply(4, "one")]
    await say("hello", "--project", "Shop")
    [_, told] = simulator.numbers
    assert told.pop("webhook_url").endswith("/webhooks/whatsapp")
    assert told == {"phone_number_id": "456", "display_phone_number": "456", "waba_id": "789", "app_secret": "x", "verify_token": "x"}
    assert [message["phone_number_id"] for message in simulator.sent] == ["456"]
    assert capsys.readouterr().out == "one\n"


async def test_silence_is_told_with_exit_code_1_and_where_to_look(simulator: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        await say("hello", "--wait", "0.1")
    assert left.value.code == 1
    assert len(simulator.sent) == 1
    assert "no reply within 0.1 s" in capsys.readouterr().err
    with pytest.raises(NoTime, match="seconds from 0 on, not -1"):
        await say("hello", "--wait", "-1")
    assert len(simulator.sent) == 1


def test_buttons_and_list_rows_are_shown_below_the_text() -> None:
    buttons = reply(1, "What?", "interactive", action={"buttons": [{"type": "reply", "reply": {"id": "tea", "title": "Tea"}}]})
    rows = [{"id": "a", "title": "Haircut", "description": "30 minutes"}, {"id": "b", "title": "Shave"}]
    choice = reply(2, "Which?", "interactive", action={"button": "Services", "sections": [{"rows": rows}]})
    assert list(lines(buttons)) == ["What?", "  [ Tea ]"]
    assert list(lines(choice)) == ["Which?", "  - Haircut: 30 minutes", "  - Shave"]


def test_a_message_without_text_shows_its_type() -> None:
    assert list(lines(reply(1, None, "image", link="https://example.org/cat.jpg"))) == ["[image]"]
