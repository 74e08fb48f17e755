"""Operations that another service serves (`loquat_rest`): the key, the project and the scope are checked here, the request goes on as it came."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from aiohttp import ClientError, ClientResponse, web
from loquat_common.client import InternalClient, ServiceUnavailable
from loquat_common.http import ACTOR, Api, whole
from loquat_common.logs import get_logger
from loquat_common.problems import Problem
from loquat_common.tokens import Actor
from loquat_events.catalog import Service
from loquat_rest import catalog
from loquat_rest.operation import AUDITED, JSON, OneProject, Operation

from loquat_gateway.adapters.people import People
from loquat_gateway.http.access import Access
from loquat_gateway.http.turns import PIECE, SILENCE, Pieces, Turns

PUBLIC: Final = "/v1/projects/{project_id}"
_GIVEN: Final = ("Content-Type", "Accept", "Idempotency-Key")
_PASSED: Final = ("Content-Type", "Content-Disposition", "ETag", "Retry-After", "Allow")

Owned = Mapping[Service, Sequence[Operation]]
OWNED: Final[Owned] = {
    "schema-manager": catalog.SCHEMA_MANAGER,
    "provisioner": catalog.PROVISIONER,
    "bot-runner": catalog.BOT_RUNNER,
}


class Forward:
    """The routes of `owned`: operations by the service that serves them."""

    def __init__(self, access: Access, people: People, clients: Mapping[Service, InternalClient], owned: Owned) -> None:
        self._access, self._people, self._clients, self._owned = access, people, clients, owned
        self._turns = Turns()

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        for service, operations in self._owned.items():
            for operation in operations:
                api.serve(operation, self._handler(service, operation), below=PUBLIC)

    def _handler(self, service: Service, operation: Operation) -> Callable[..., Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request, *, path: OneProject, **_checked: Any) -> web.StreamResponse:
            actor = await self._access.project(request, path.project_id, ready=operation.ready)
            with self._turns.taken(path.project_id, streams=operation.streams):
                body = await _body(request, operation)
                try:
                    return await self._forwarded(request, service, operation, actor, body)
                except ServiceUnavailable:
                    if isinstance(body, Pieces) and body.stalled:
                        raise Problem(408, "too_slow", "The body did not go on", f"{SILENCE:g} seconds of silence are the limit") from None
                    raise

        return handle

    async def _forwarded(
        self, request: web.Request, service: Service, operation: Operation, actor: Actor, body: bytes | Pieces | None
    ) -> web.StreamResponse:
        project = actor.project or ""
        _, _, tail = request.rel_url.raw_path_qs.partition(f"/{project}/")
        async with self._clients[service].forward(
            operation.method,
            f"/internal/projects/{project}/{tail}",
            actor=actor,
            body=body,
            headers={k: request.headers[k] for k in (*_GIVEN, *operation.headers) if k in request.headers},
            seconds=operation.seconds,
            streams=operation.streams,
        ) as answer:
            if (action := _action(operation, answer)) is not None:
                await self._audit(request, action, project)
            passed = {k: answer.headers[k] for k in _PASSED if k in answer.headers}
            if not operation.gives:
                return web.Response(status=answer.status, headers=passed, body=await answer.read())
            return await _streamed(request, answer, passed)

    async def _audit(self, request: web.Request, action: str, project: str) -> None:
        actor = request[ACTOR]
        await self._people.audit(actor.organization or "", actor.subject, action, project)


async def _body(request: web.Request, operation: Operation) -> bytes | Pieces | None:
    """JSON is bounded and read whole before anybody's connection is taken; a file goes on as it comes."""
    if operation.takes and JSON not in operation.takes:
        return Pieces(request.content)
    return await whole(request) if operation.body or operation.takes else None


async def _streamed(request: web.Request, answer: ClientResponse, headers: Mapping[str, str]) -> web.StreamResponse:
    """The answer, piece by piece. One that breaks off cuts the connection: its beginning must not look like all of it."""
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(request)
    try:
        async for piece in answer.content.iter_chunked(PIECE):
            async with asyncio.timeout(SILENCE):  # who does not read keeps nothing open
                await response.write(piece)
    except (ClientError, TimeoutError, OSError) as error:
        get_logger().warning("forward.broken_off", error=type(error).__name__)
        answer.close()  # or the service behind would go on writing
        if request.transport is not None:
            request.transport.abort()
        return response
    await response.write_eof()
    return response


def _action(operation: Operation, answer: ClientResponse) -> str | None:
    """What stands in the audit record: an operation that is not for reading, or what one for reading says that it changed."""
    if answer.status >= web.HTTPBadRequest.status_code:
        return None
    return answer.headers.get(AUDITED) if operation.scope.endswith(":read") else f"{operation.method} {operation.path}"
