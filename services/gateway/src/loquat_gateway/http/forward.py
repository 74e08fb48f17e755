"""Operations that another service serves (`loquat_rest`): the key, the project and the scope are checked here, the request goes on as it came."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from aiohttp import ClientError, ClientResponse, web
from loquat_common.client import InternalClient
from loquat_common.http import ACTOR, Api
from loquat_common.logs import get_logger
from loquat_events.catalog import Service
from loquat_rest import catalog
from loquat_rest.operation import AUDITED, OneProject, Operation

from loquat_gateway.adapters.people import People
from loquat_gateway.http.access import Access

PUBLIC: Final = "/v1/projects/{project_id}"
_GIVEN: Final = ("Content-Type", "Accept", "Idempotency-Key")
_PASSED: Final = ("Content-Type", "Content-Disposition", "Retry-After", "Allow")
_PIECE: Final = 64 << 10  # bytes of a stream at a time

Owned = Mapping[Service, Sequence[Operation]]
OWNED: Final[Owned] = {"schema-manager": catalog.SCHEMA_MANAGER, "provisioner": catalog.PROVISIONER}


class Forward:
    """The routes of `owned`: operations by the service that serves them."""

    def __init__(self, access: Access, people: People, clients: Mapping[Service, InternalClient], owned: Owned) -> None:
        self._access, self._people, self._clients, self._owned = access, people, clients, owned

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        for service, operations in self._owned.items():
            for operation in operations:
                api.serve(operation, self._handler(service, operation), below=PUBLIC)

    def _handler(self, service: Service, operation: Operation) -> Callable[..., Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request, *, path: OneProject, **_checked: Any) -> web.StreamResponse:
            actor = await self._access.project(request, path.project_id, ready=True)
            _, _, tail = request.rel_url.raw_path_qs.partition(f"/{path.project_id}/")
            headers = {k: request.headers[k] for k in (*_GIVEN, *operation.headers) if k in request.headers}
            body = request.content.iter_chunked(_PIECE) if operation.takes else await request.read() if operation.body else None
            async with self._clients[service].forward(
                operation.method,
                f"/internal/projects/{path.project_id}/{tail}",
                actor=actor,
                body=body,
                headers=headers,
                seconds=operation.seconds,
                streams=operation.streams,
            ) as answer:
                if (action := _action(operation, answer)) is not None:
                    await self._audit(request, action, path.project_id)
                passed = {k: answer.headers[k] for k in _PASSED if k in answer.headers}
                if not operation.gives:
                    return web.Response(status=answer.status, headers=passed, body=await answer.read())
                return await _streamed(request, answer, passed)

        return handle

    async def _audit(self, request: web.Request, action: str, project: str) -> None:
        actor = request[ACTOR]
        await self._people.audit(actor.organization or "", actor.subject, action, project)


async def _streamed(request: web.Request, answer: ClientResponse, headers: Mapping[str, str]) -> web.StreamResponse:
    """The answer, piece by piece. One that breaks off cuts the connection: its beginning must not look like all of it."""
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(request)
    try:
        async for piece in answer.content.iter_chunked(_PIECE):
            await response.write(piece)
    except (ClientError, TimeoutError, OSError) as error:
        get_logger().warning("forward.broken_off", error=type(error).__name__)
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
