"""A gateway that a test plays: what it answers, and what it was asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

KEY = "lq_the-owners-key"
PROJECTS = [
    {"id": "prj_1", "name": "Demo", "status": "ready", "created_at": "2026-01-02T03:04:05Z", "failing_step": None, "reason": None},
    {
        "id": "prj_2",
        "name": "[red]odd\x1b[2J",
        "status": "failed",
        "created_at": "2026-01-02T03:04:05Z",
        "failing_step": "clone",
        "reason": "disk",
    },
    {"id": "prj_3", "name": "twin", "status": "ready", "created_at": "2026-01-02T03:04:05Z", "failing_step": None, "reason": None},
    {"id": "prj_4", "name": "twin", "status": "ready", "created_at": "2026-01-02T03:04:05Z", "failing_step": None, "reason": None},
]
REASONS = {
    "status": 409,
    "code": "deployment_refused",
    "title": "The bot was not deployed",
    "detail": "no table; no state",
    "reasons": [
        {"code": "table_missing", "detail": "no table", "advice": "create it first"},
        {"code": "does_not_load", "detail": "no state", "trace": "File bot.py\nKeyError", "advice": "mend it"},
    ],
    "advice": "Mend it, or deploy with force",
}
STEP = {"name": "clone", "status": "failed", "attempts": 3, "started_at": "2026-01-02T03:04:05Z", "ended_at": None, "reason": "disk"}
ROOM = {"key": "room", "value": "1.10", "updated_at": "2026-01-02T03:04:05Z"}
DECLARED = [
    {"key": n, "type": "str", "nullable": n == "menu", "help": f"the {n}", "default": d} for n, d in (("room", None), ("menu", "null"))
]
DAILY = {"name": "daily", "schedule": "0 9 * * *", "tz": "Europe/Berlin", "active": True, "next_due": None, "catch_up": "once"}
PAST = {"event_id": "e1", "due_at": "2026-01-02T03:04:05Z", "ordered_by": "key_1", "finished_at": None, "outcome": None}
SETTINGS: dict[tuple[str, str], tuple[int, Any]] = {
    ("GET", "/configuration"): (200, {"items": [ROOM], "declared": DECLARED}),
    ("PUT", "/configuration/room"): (200, ROOM),
    ("DELETE", "/configuration/room"): (204, None),
    ("GET", "/secrets"): (200, {"items": [{"name": "bank", "updated_at": "2026-01-02T03:04:05Z"}]}),
    ("PUT", "/secrets/bank"): (200, {"name": "bank"}),
    ("DELETE", "/secrets/bank"): (204, None),
    ("GET", "/schedules"): (200, {"items": [DAILY]}),
    ("PATCH", "/schedules/daily"): (200, DAILY),
    ("POST", "/schedules/daily/runs"): (202, {"event_id": "e9"}),
    ("GET", "/schedules/daily/runs"): (200, {"items": [{**PAST, "event_id": "e2", "outcome": "handled"}, PAST]}),
}
SEEN = {
    "preview_id": f"clone_{'a' * 32}",
    "database": "clone",
    "version": "ab" * 32,
    "contact_id": "c1",
    "outcome": "handled",
    "replies": [{"type": "buttons", "text": "Tea?", "content": {"buttons": [{"id": "yes", "title": "Yes"}]}}],
    "state_before": "start",
    "state": "asked",
    "ended": False,
    "holder": "people",
    "timers": [{"name": "loquat:handback", "due_at": "2026-01-02T03:04:05Z"}, {"name": "late", "due_at": "2026-01-02T03:04:05Z"}],
    "touched": {"orders": 2},
    "log": [{"level": "info", "line": "asking"}],
    "error": None,
    "trace": None,
}
EGRESS = {"hosts": ["api.example.com", "*.example.org"], "updated_at": None}
AT = "2026-01-02T03:04:05Z"
WENT = {"host": "a.example", "port": 443, "outcome": "host", "connections": 3, "sent": 0, "received": 0, "first_at": AT, "last_at": AT}
LIMITS = {
    name: {"call_seconds": seconds, "threads": 8} for name, seconds in (("limits", 20.0), ("plan", 10.0), ("least", 0.5), ("most", 60.0))
}
WALLS: dict[tuple[str, str], tuple[int, Any]] = {
    ("GET", "/egress"): (200, EGRESS),
    ("PUT", "/egress"): (200, EGRESS),
    ("GET", "/egress/destinations"): (200, {"items": [WENT]}),
    ("GET", "/limits"): (200, LIMITS),
    ("PATCH", "/limits"): (200, LIMITS),
}
FAILED = {
    "id": "1",
    "event_id": "e1",
    "started_at": AT,
    "version": "ab" * 32,
    "state": "start",
    "next_state": None,
    "outcome": "failed",
    "duration_ms": 1.0,
    "error": "KeyError: 'x'",
    "trace": "line 7\n",
}
Calls = list[tuple[str, str, Any]]
Run = Callable[..., Awaitable[None]]
ANSWERS: dict[tuple[str, str], tuple[int, Any]] = {
    ("GET", "/v1/projects"): (200, {"items": PROJECTS[:2], "next_cursor": "two"}),
    ("GET", "/v1/projects cursor=two"): (200, {"items": PROJECTS[2:], "next_cursor": None}),
    ("POST", "/v1/projects"): (202, {"id": "prj_1"}),
    ("GET", "/v1/projects/prj_1"): (200, PROJECTS[0]),
    ("POST", "/v1/projects/prj_1/bot/deployments"): (201, {"version": "0123456789abcdef", "forced": ["does_not_load"]}),
    ("POST", "/v1/projects/prj_3/bot/deployments"): (
        422,
        {
            "status": 422,
            "code": "bot_refused",
            "title": "The bot cannot be deployed",
            "detail": "invalid syntax",
            "file": "bot.py",
            "line": 2,
        },
    ),
    ("GET", "/v1/projects/prj_1/bot/versions"): (
        200,
        {"items": [{"version": "ab" * 32}, {"version": "abcdef" + "0" * 58}], "next_cursor": None},
    ),
    ("GET", "/v1/projects/prj_1/bot"): (200, {"deployment": {"testers": {"c9": "draft"}}}),
    ("GET", "/v1/projects/prj_1/contacts"): (200, {"items": [{"id": "c1", "phone_number": "4915"}], "next_cursor": None}),
    ("PUT", "/v1/projects/prj_1/bot/testers"): (200, {"testers": {"c1": "draft"}}),
    ("POST", "/v1/projects/prj_1/bot/preview"): (200, SEEN),
    ("POST", "/v1/projects/prj_1/bot/rollback"): (201, {"version": "ab" * 32}),
    ("POST", "/v1/projects/prj_1/bot/pause"): (201, {"version": "ab" * 32, "paused": True}),
    ("POST", "/v1/projects/prj_1/bot/resume"): (201, {"version": "ab" * 32, "paused": False}),
    ("POST", "/v1/projects/prj_4/bot/deployments"): (409, REASONS),
    ("GET", "/v1/projects/prj_1/bot/logs"): (
        200,
        {
            "items": [
                {"at": "2026-01-02T03:04:06Z", "level": "info", "line": "two"},
                {"at": "2026-01-02T03:04:05Z", "level": "info", "line": "one"},
            ]
        },
    ),
    ("GET", "/v1/projects/prj_1/dead-letters"): (200, {"items": [], "unavailable": ["connector"]}),
    ("POST", "/v1/projects/prj_1/dead-letters/bot-runner.7/discard"): (204, None),
    ("POST", "/v1/projects/prj_1/numbers"): (201, {}),
    ("DELETE", "/v1/projects/prj_1/numbers/123"): (204, None),
    ("GET", "/v1/projects/prj_1/bot/runs"): (200, {"items": [{**FAILED, "event_id": "e2"}, FAILED, FAILED, FAILED]}),
    ("GET", "/v1/projects/prj_2"): (200, {**PROJECTS[1], "ready_at": None, "steps": [STEP]}),
    ("POST", "/v1/projects/prj_2/retry"): (202, PROJECTS[1]),
    ("DELETE", "/v1/projects/prj_2"): (202, PROJECTS[1]),
    **{(method, f"/v1/projects/prj_1/bot{path}"): given for (method, path), given in (SETTINGS | WALLS).items()},
}


@asynccontextmanager
async def played(calls: Calls) -> AsyncGenerator[TestServer]:
    """It notes method, path and body of each call."""

    async def answer(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        calls.append((request.method, request.path, await request.json() if request.can_read_body else None))
        page = f" cursor={request.query['cursor']}" if "cursor" in request.query else ""
        status, body = ANSWERS.get(
            (request.method, request.path + page), (404, {"status": 404, "code": "not_found", "title": "There is no such thing"})
        )
        return web.json_response(body, status=status) if body is not None else web.Response(status=status)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    server = TestServer(app)
    await server.start_server()
    yield server
    await server.close()
