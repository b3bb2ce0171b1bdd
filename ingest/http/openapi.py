"""The API as an OpenAPI document, made from the declarations of its routes
(`shared/service/routes.py`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web

from shared.service.http import Problem, json_response
from shared.service.parameters import schema_of_parsed
from shared.service.routes import Route, route, routes_of

_REFERENCE = "#/components/schemas/{name}"
_PROBLEM = "application/problem+json"
_REASONS = {
    200: "done",
    201: "created",
    202: "accepted and durable",
    204: "nothing left to send",
    400: "not JSON",
    401: "token or signature missing or wrong",
    403: "the cookie of a session, sent from another site",
    404: "not found",
    409: "in conflict with the present state, see `detail`",
    413: "too large",
    422: "invalid parameter or body, see `detail`",
    503: "a dependency is unavailable, or the service is not ready",
}
_LIST_OF_NUMBERS = r"^[0-9]{1,18}(,[0-9]{1,18})*$"


class OpenApi:
    """Handler of /openapi.json, which needs no credentials."""

    def __init__(self, apis: Iterable[type]) -> None:
        """`apis` are the classes that declare the routes served beside this one."""
        routes = [each for api in (*apis, OpenApi) for each in routes_of(api)]
        self._document = openapi_document(routes)

    @route("GET /openapi.json", "This document", {200: dict}, is_open=True, is_lenient=True)
    async def get_document(self, _request: web.Request) -> web.Response:
        return json_response(self._document)


def openapi_document(routes: Sequence[Route]) -> dict[str, Any]:
    """The document of these routes; every answer and request body is a named schema."""
    routes = [each for each in routes if each.is_described]
    answers = {
        kind for each in routes for kinds in each.answers.values() for kind in _alternatives(kinds)
    }
    bodies = {each.body for each in routes if each.body is not None}
    types = [Problem, *sorted(answers | bodies, key=lambda kind: kind.__name__)]
    schemas, components = _schemas(types)
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in routes:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "millstream",
            "version": "0.1.0",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "secret": {"type": "http", "scheme": "bearer", "description": "WEBHOOK_API_SECRET"}
            },
        },
    }


def _operation(declared: Route, schema_of: Mapping[type, Any]) -> dict[str, Any]:
    responses = {
        str(status): _answer(declared, status, [schema_of[kind] for kind in _alternatives(kinds)])
        for status, kinds in declared.answers.items()
    }
    errors = declared.all_errors if declared.is_open else declared.all_errors | {401, 403, 503}
    for status in sorted(errors):
        problem = {"schema": schema_of[Problem]}
        responses[str(status)] = {"description": _REASONS[status], "content": {_PROBLEM: problem}}
    operation: dict[str, Any] = {
        "summary": declared.summary,
        "parameters": list(_parameters(declared)),
        "responses": responses,
    }
    if declared.body is not None:
        operation["requestBody"] = {
            "required": declared.is_body_required,
            "content": {"application/json": {"schema": schema_of[declared.body]}},
        }
    if not declared.is_open:
        operation["security"] = [{"secret": []}]
    return operation


def _answer(declared: Route, status: int, schemas: Sequence[Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": _REASONS[status]}
    if schemas:
        answer["content"] = {
            declared.media: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
        }
    return answer


def _alternatives(kinds: type | tuple[type, ...]) -> tuple[type, ...]:
    """The types that an answer's body may have; none if it has no body."""
    if isinstance(kinds, tuple):
        return kinds
    return () if kinds is type(None) else (kinds,)


def _parameters(declared: Route) -> Iterator[dict[str, Any]]:
    for name, kind in declared.path_parameters.items():
        [schema], components = _schemas([kind])
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "schema": _as_parameter(schema, components),
        }
    if declared.query is None:
        return
    [reference], components = _schemas([declared.query])
    query = _resolved(reference, components)
    for name, schema in query["properties"].items():
        is_required = name in query.get("required", ())
        yield {
            "name": name,
            "in": "query",
            "required": is_required,
            "schema": _as_parameter(schema, components),
        }


def _as_parameter(schema: dict[str, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a field as a parameter: omitted instead of null, and a list is separated by
    commas.
    """
    chosen = next(each for each in schema.get("anyOf", [schema]) if each.get("type") != "null")
    chosen = _resolved(chosen, components)
    if chosen.get("type") == "array":
        return {"type": "string", "pattern": _LIST_OF_NUMBERS}
    return {name: value for name, value in chosen.items() if name not in {"title", "default"}}


def _schemas(types: Sequence[Any]) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    return msgspec.json.schema_components(
        types, schema_hook=schema_of_parsed, ref_template=_REFERENCE
    )


def _resolved(schema: dict[str, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = components[schema["$ref"].rpartition("/")[2]]
    return found
