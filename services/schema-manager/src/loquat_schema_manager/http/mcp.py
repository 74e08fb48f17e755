"""The tools by MCP: streamable HTTP by the official SDK, each request for itself (no sessions), JSON answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final, cast

from aiohttp import web
from loquat_common.http import ACTOR, Api
from loquat_common.logs import get_logger
from loquat_common.problems import Problem
from loquat_common.tokens import Actor
from loquat_rest import tools as shapes
from loquat_rest.operation import AUDITED, OneProject
from mcp import types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError

from loquat_schema_manager.domain.exact import reading
from loquat_schema_manager.http.asgi import respond
from loquat_schema_manager.http.tables import BELOW
from loquat_schema_manager.http.tools import Tool, Toolbox

_START: Final = 5.0  # seconds until the SDK's task group runs; it takes a turn of the loop
_INSTRUCTIONS: Final = (
    "The tables of one project of Loquat, a platform for WhatsApp bots. contacts, conversations and messages are the platform's and can be read."
    " Everything else is the project's own. Errors have a stable code and say what is allowed."
)

Context = ServerRequestContext[Any, Any]


@dataclass(slots=True)
class _Caller:
    """Who asks, for which project; the arguments with their numbers as they were written, if the SDK's reading rounds any; what the request changed."""

    project: str
    actor: Actor
    exact: object = None
    changed: list[str] = field(default_factory=list[str])


class Mcp:
    """The MCP server of all projects: which one is asked for stands in the path, as everywhere."""

    def __init__(self, toolbox: Toolbox) -> None:
        self._toolbox, self._log, self._runs = toolbox, get_logger(), asyncio.Event()
        server = Server[Any](
            "loquat", version="1", instructions=_INSTRUCTIONS, on_list_tools=self._list_tools, on_call_tool=self._call_tool
        )
        self._sessions = StreamableHTTPSessionManager(server, json_response=True, stateless=True)

    async def run(self) -> None:
        """Holds the SDK's tasks, for ever; one task enters and leaves them. Once per object."""
        async with self._sessions.run():
            self._runs.set()
            await asyncio.Event().wait()

    def add_to(self, api: Api) -> None:
        """Adds the route. There is no GET: without sessions the server has nothing to say of itself, and 405 is the protocol's word for that."""
        api.serve(shapes.MCP, self.post, below=BELOW)

    async def post(self, request: web.Request, *, path: OneProject) -> web.Response:
        """One message of the protocol."""
        async with asyncio.timeout(_START):
            await self._runs.wait()
        caller = _Caller(path.project_id, request[ACTOR], _arguments(reading(await request.read())))
        response = await respond(self._sessions.handle_request, request, caller)
        if caller.changed:
            response.headers[AUDITED] = ", ".join(caller.changed)
        return response

    async def _list_tools(self, context: Context, _params: object) -> types.ListToolsResult:
        """Those that the key may call."""
        scopes = _caller(context).actor.scopes
        return types.ListToolsResult(tools=[_described(t) for t in self._toolbox.tools.values() if t.scope in scopes])

    async def _call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        """What a tool refuses is a result that the model can read and learn from."""
        caller = _caller(context)
        if params.name not in self._toolbox.tools:
            raise MCPError(types.INVALID_PARAMS, "There is no such tool")
        try:
            result = await self._toolbox.call(caller.project, caller.actor, params.name, params.arguments or {}, caller.exact)
        except Problem as problem:
            return _text(problem.body(), is_error=True)
        except Exception:  # noqa: BLE001  (the edge: the SDK would send the text of our error)
            self._log.exception("mcp.failed", tool=params.name)
            return _text(Problem(500, "internal_error", "Something failed on our side", "It is in the log").body(), is_error=True)
        if result.changed:
            caller.changed.append(result.changed)
        return _text(result.json, is_error=False)


def _arguments(message: Any) -> object:
    """Of a call of a tool, as JSON-RPC has it."""
    params: object = cast("dict[str, object]", message).get("params") if isinstance(message, dict) else None
    return cast("dict[str, object]", params).get("arguments") if isinstance(params, dict) else None


def _caller(context: Context) -> _Caller:
    caller = context.request.scope["loquat"] if context.request is not None else None
    assert isinstance(caller, _Caller)  # noqa: S101  (post() put it there)
    return caller


def _described(tool: Tool) -> types.Tool:
    view = tool.view()
    hints = types.ToolAnnotations(
        title=view.title,
        read_only_hint=view.read_only,
        destructive_hint=view.destructive,
        idempotent_hint=view.idempotent,
        open_world_hint=False,
    )
    return types.Tool(name=view.name, title=view.title, description=view.description, input_schema=view.input_schema, annotations=hints)


def _text(json: bytes, *, is_error: bool) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=json.decode())], is_error=is_error)
