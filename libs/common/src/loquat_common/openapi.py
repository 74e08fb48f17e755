"""OpenAPI 3.1 of an `Api`. Pydantic's schemas are of the same dialect, so only the frame is made here."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import TypeAdapter

from loquat_common.http import Api, Route
from loquat_common.problems import CONTENT_TYPE, ProblemDocument

_REF: Final = "#/components/schemas/{model}"
Mode = Literal["validation", "serialization"]


def document(api: Api, *, description: str, prefix: str = "/") -> dict[str, Any]:
    """The document of the routes below `prefix`."""
    routes = [r for r in api.routes if r.path.startswith(prefix)]
    problem: TypeAdapter[Any] = TypeAdapter(ProblemDocument)
    inputs: list[tuple[tuple[int, str], Mode, TypeAdapter[Any]]] = [((-1, "problem"), "serialization", problem)]
    for n, route in enumerate(routes):
        for name, adapter in route.parts.items():
            inputs.append(((n, name), "validation", adapter))
        if route.answer is not None:
            inputs.append(((n, "answer"), "serialization", route.answer))
    schemas, definitions = TypeAdapter.json_schemas(inputs, ref_template=_REF)
    shown = {(key, mode): _resolve(schema, definitions) for (key, mode), schema in schemas.items()}
    paths: dict[str, dict[str, Any]] = {}
    for n, route in enumerate(routes):
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, n, shown, schemas[(-1, "problem"), "serialization"])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": api.title,
            "version": api.version,
            "description": description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer", "description": "an API key of an organization"}},
        },
    }


def _resolve(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Parameters are listed one by one, so the object that holds them is looked up."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return definitions["$defs"][name] if name else schema


def _operation(route: Route, n: int, shown: dict[Any, dict[str, Any]], problem: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": part, "required": part == "path" or name in schema.get("required", ()), "schema": declared}
        for part in ("path", "query")
        if (schema := shown.get(((n, part), "validation")))
        for name, declared in schema["properties"].items()
    ] + [{"name": name, "in": "header", "required": False, "schema": {"type": "string"}} for name in route.headers]
    operation: dict[str, Any] = {
        "operationId": _identifier(route),
        "summary": route.summary,
        "parameters": parameters,
        "responses": _responses(route, n, shown, problem),
    }
    if "body" in route.parts:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": shown[(n, "body"), "validation"]}}}
    elif route.takes:
        operation["requestBody"] = {"required": True, "content": {kind: {} for kind in route.takes}}
    if route.scope is not None:
        operation["security"] = [{"apiKey": []}]
        operation["description"] = f"Needs the scope `{route.scope}`."
    return operation


def _identifier(route: Route) -> str:
    words = [w.strip("{}") for w in route.path.replace(".", "/").replace("-", "_").split("/") if w]
    return "_".join([route.method.lower(), *words])


def _responses(route: Route, n: int, shown: dict[Any, dict[str, Any]], problem: dict[str, Any]) -> dict[str, Any]:
    empty = route.answer is None and not route.gives
    status = 204 if empty and route.status == 200 else route.status  # noqa: PLR2004
    good: dict[str, Any] = {"description": "done"}
    if route.answer is not None:
        good["content"] = {"application/json": {"schema": shown[(n, "answer"), "serialization"]}}
    elif route.gives:
        good["content"] = {kind: {} for kind in route.gives}
    failure = {"description": "a problem", "content": {CONTENT_TYPE: {"schema": problem}}}
    expected = {
        *route.errors,
        *((401, 403) if route.scope else ()),
        *((400, 413, 415, 422) if "body" in route.parts or route.takes else ()),
        *((422,) if "query" in route.parts else ()),
    }
    return {str(status): good, **{str(code): failure for code in sorted(expected)}, "default": failure}
