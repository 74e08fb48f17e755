"""The thin layer between aiohttp and pydantic.

A handler is `async def f(request, *, path: P, query: Q, body: B) -> R`; each part is a pydantic model and optional. The same annotations
validate requests, shape answers and make the OpenAPI document (`openapi.py`).
"""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, cast, get_args, get_origin, get_type_hints

from aiohttp import hdrs, web
from loquat_rest.operation import Operation
from prometheus_client import Counter, Histogram
from pydantic import BaseModel, TypeAdapter, ValidationError

from loquat_common import metrics
from loquat_common.db import is_gone
from loquat_common.logs import get_logger
from loquat_common.problems import Problem, of_validation
from loquat_common.tokens import Actor, TokenRefused, Verifier

ACTOR: Final = web.RequestKey("actor", Actor)
BODY_LIMIT: Final = 1 << 20
"""Bytes of a JSON body, where the application does not say otherwise: bot bundles and imports have limits of their own."""
BODY_SECONDS: Final = 30.0
"""For a body that is read whole: a few MB over a slow line."""
_JSON: Final = "application/json"
_LONGEST_KEY: Final = 200
_NUL: Final = b"\\u0000"
_PLACE: Final = re.compile(r"\{(\w+)\}")

Handler = Callable[..., Awaitable[Any]]
Authenticate = Callable[[web.Request], Awaitable[Actor]]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: what it takes and gives, and the scope its caller needs (None: open to everybody).

    `takes` and `gives` are media types of a body or an answer that is a stream and no model.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    status: int
    scope: str | None
    parts: dict[str, TypeAdapter[Any]] = field(repr=False)
    models: dict[str, type[BaseModel]] = field(repr=False)
    answer: TypeAdapter[Any] | None = field(repr=False)
    errors: Sequence[int] = ()
    takes: Sequence[str] = ()
    gives: Sequence[str] = ()
    headers: Sequence[str] = ()


class Api:
    """Routes of one application."""

    def __init__(self, title: str, version: str, *, authenticate: Authenticate | None = None, body_limit: int = BODY_LIMIT) -> None:
        self.title, self.version = title, version
        self.routes: list[Route] = []
        self._authenticate, self._body_limit = authenticate, body_limit

    def route(
        self,
        method: str,
        path: str,
        handler: Handler,
        *,
        summary: str,
        status: int = 200,
        scope: str | None = None,
        errors: Sequence[int] = (),
    ) -> None:
        """Adds an operation. A `scope` without `authenticate`, or a part that is not a model, is a mistake of ours and refused here."""
        if scope is not None and self._authenticate is None:
            raise TypeError(f"{method} {path} asks for a scope, but this application authenticates nobody")
        hints = get_type_hints(handler)
        models: dict[str, type[BaseModel]] = {}
        parts: dict[str, TypeAdapter[Any]] = {}
        for name, parameter in inspect.signature(handler).parameters.items():
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                continue
            if name not in {"path", "query", "body"}:
                raise TypeError(f"{method} {path}: a handler takes path, query and body, not {name}")
            parts[name] = TypeAdapter(hints[name])
            if name != "body":
                models[name] = hints[name]
        answer = _answer(hints.get("return"))
        self.routes.append(Route(method, path, handler, summary, status, scope, parts, models, answer, errors))

    def serve(self, operation: Operation, handler: Handler, *, below: str) -> None:
        """Adds an operation whose shapes stand in `loquat_rest`. The handler is as for `route`; a streamed body it reads from the request."""
        if self._authenticate is None:
            raise TypeError(f"{operation.path} asks for a scope, but this application authenticates nobody")
        models: dict[str, type[BaseModel]] = {"path": operation.at} | ({"query": operation.query} if operation.query else {})
        parts: dict[str, type[BaseModel]] = models | ({"body": operation.body} if operation.body else {})
        self.routes.append(
            Route(
                operation.method,
                below + operation.path,
                handler,
                operation.summary,
                operation.status,
                operation.scope,
                {name: TypeAdapter(model) for name, model in parts.items()},
                models,
                TypeAdapter[Any](operation.answer) if operation.answer is not None else None,
                operation.errors,
                operation.takes,
                operation.gives,
                operation.headers,
            )
        )

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[problems], client_max_size=self._body_limit)
        for route in self.routes:
            # aiohttp's own places take no braces; a table's name may have some.
            app.router.add_route(route.method, _PLACE.sub(r"{\1:[^/]+}", route.path), self._bound(route))
        return app

    def _bound(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            if route.scope is not None:
                await self._admit(request, route.scope)
            given = {name: await _part(request, route, name) for name in route.parts}
            result = await route.handler(request, **given)
            if isinstance(result, web.StreamResponse):
                return result
            if route.answer is None:
                return web.Response(status=204 if route.status == web.HTTPOk.status_code else route.status)
            return web.Response(status=route.status, body=route.answer.dump_json(result), content_type=_JSON)

        return handle

    async def _admit(self, request: web.Request, scope: str) -> None:
        assert self._authenticate is not None  # noqa: S101  (route() saw to it)
        actor = await self._authenticate(request)
        if scope not in actor.scopes:
            raise Problem(403, "forbidden", "This key may not do that", f"It lacks the scope {scope}")
        request[ACTOR] = actor


def _answer(declared: Any) -> TypeAdapter[Any] | None:
    if declared is None or declared is type(None) or (inspect.isclass(declared) and issubclass(declared, web.StreamResponse)):
        return None
    return TypeAdapter[Any](declared)


async def _part(request: web.Request, route: Route, name: str) -> Any:
    adapter = route.parts[name]
    try:
        match name:
            case "path":
                given: Any = dict(request.match_info)
                _keepable(name, given)
                return adapter.validate_python(given, strict=False)
            case "query":
                given = _query(request, route.models["query"])
                _keepable(name, given)
                return adapter.validate_python(given)
            case _:
                raw = await _json(request)
                if _NUL in raw:  # perhaps an escaped backslash: then the look finds nothing
                    _keepable(name, adapter.dump_python(adapter.validate_json(raw), mode="json"))
                return adapter.validate_json(raw)
    except ValidationError as error:
        raise of_validation(name, error) from None


def _keepable(place: str, value: object) -> None:
    """PostgreSQL keeps no NUL character, and nobody means one: refused before anything is ordered with it.

    Raises:
        Problem: 422, with the place.
    """
    if isinstance(value, str):
        if "\0" in value:
            raise Problem(422, "invalid_request", "The request is not valid", f"{place} has a NUL character")
    elif isinstance(value, dict):
        for key, inner in cast("dict[object, object]", value).items():
            _keepable(place, key)
            _keepable(f"{place}.{key}", inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for n, inner in enumerate(cast("Iterable[object]", value)):
            _keepable(f"{place}.{n}", inner)


def _query(request: web.Request, model: type[BaseModel]) -> dict[str, Any]:
    """A field that is a list takes all its values, even if there is one; any other field must come once."""
    given: dict[str, Any] = {}
    for name, declared in model.model_fields.items():
        key = declared.alias or name
        values = request.query.getall(key, [])
        if not values:
            continue
        many = any(get_origin(a) in {list, tuple, set} for a in (declared.annotation, *get_args(declared.annotation)))
        if not many and len(values) > 1:
            raise Problem(
                422, "invalid_request", "The request is not valid", f"query.{key} is given {len(values)} times; once is the limit"
            )
        given[key] = values if many else values[0]
    return given


async def _json(request: web.Request) -> bytes:
    if request.content_type != _JSON:
        raise Problem(415, "unsupported_media_type", f"The body must be {_JSON}", f"It came as {request.content_type}")
    return await whole(request)


async def whole(request: web.Request) -> bytes:
    """The body, within the application's limit.

    Raises:
        Problem: 408 when it does not arrive in time: whoever sends it slowly shall not hold what waits for it.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise Problem(408, "too_slow", "The body did not arrive in time", f"{BODY_SECONDS:g} seconds are the limit") from None


@web.middleware
async def problems(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """Turns every failure into problem+json, and counts."""
    started = time.perf_counter()
    try:
        response = await handler(request)
    except Problem as problem:
        response = problem.response()
    except web.HTTPException as error:
        response = _of_aiohttp(error, request).response()
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
    except Exception as error:  # noqa: BLE001  (the edge: a bug becomes a 500 and a log line)
        response = _of_failure(error, request).response()
    answered, seconds = _counters(request.method if request.method in hdrs.METH_ALL else "other", _name(request), response.status)
    answered.inc()
    seconds.observe(time.perf_counter() - started)
    return response


@cache
def _counters(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """Each label of a closed set: a method is whatever a stranger writes."""
    return metrics.http_requests.labels(method, route, str(status)), metrics.http_seconds.labels(route)


def _name(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"


def _of_failure(error: Exception, request: web.Request) -> Problem:
    """A database that is away is no bug, and whoever asks is to ask again."""
    if is_gone(error):
        get_logger().warning("http.database_away", method=request.method, route=_name(request), error=type(error).__name__)
        return Problem(503, "service_unavailable", "A part of the platform does not answer", "A database is away; try again")
    get_logger().error("http.failed", method=request.method, route=_name(request), exc_info=error)
    return Problem(500, "internal_error", "Something failed on our side", "It is in the log; the request may be repeated")


def _of_aiohttp(error: web.HTTPException, request: web.Request) -> Problem:
    match error.status:
        case 404:
            return Problem(404, "not_found", "There is nothing at this address")
        case 405:
            return Problem(405, "method_not_allowed", f"{request.method} is not possible here")
        case 413:
            return Problem(413, "too_large", "The body is too large", f"{request._client_max_size} bytes are the limit")  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  (aiohttp has no public name for it)
        case _:
            return Problem(error.status, "http_error", error.reason)


def internal_auth(verifier: Verifier) -> Authenticate:
    """For the APIs between services: an actor token for this very request; who speaks for a user stays within the token's project."""

    async def authenticate(request: web.Request) -> Actor:
        _, _, token = request.headers.get("Authorization", "").partition(" ")
        try:
            actor = verifier.verify(token, request.method, request.path)
        except TokenRefused as reason:
            get_logger().warning("http.token_refused", reason=str(reason), route=_name(request))
            raise Problem(401, "unauthenticated", "The actor token was refused") from None
        project = request.match_info.get("project_id")
        if actor.kind == "user" and project is not None and actor.project != project:
            raise Problem(404, "not_found", "There is no such project")
        return actor

    return authenticate


def idempotency_key(request: web.Request) -> str | None:
    """The header, if it is there.

    Raises:
        Problem: 422 when it is empty, too long, or not UTF-8.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    detail = f"header.Idempotency-Key has {len(key)} characters; 1 to {_LONGEST_KEY} are possible"
    if any("\ud800" <= c <= "\udfff" for c in key):  # what aiohttp makes of other bytes
        detail = "header.Idempotency-Key is not UTF-8"
    elif 1 <= len(key) <= _LONGEST_KEY:
        return key
    raise Problem(422, "invalid_request", "The request is not valid", detail)
