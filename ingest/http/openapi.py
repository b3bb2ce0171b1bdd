"""The API as an OpenAPI document, made from the Structs that requests are read into and answers are written from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web

from ingest.http.described_routes import ROUTES, Route
from ingest.inspection.streams import ENTRY_ID
from shared.pipeline.stages import StageName
from shared.service.http import Problem, json_response
from shared.service.settings import Seconds

_REFERENCE = "#/components/schemas/{name}"
_PROBLEM = "application/problem+json"
_REASONS = {
    200: "done",
    201: "made",
    202: "accepted, and durable",
    204: "nothing more to tell",
    400: "not JSON",
    401: "token or signature missing or wrong",
    403: "a session's cookie from another site",
    404: "there is none",
    409: "not as things stand now: the detail says why",
    413: "too large",
    422: "cannot be used as it is",
    503: "something it needs is away, or the service is not ready",
}

_PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "job_id": {"type": "string", "format": "uuid"},
    "stage": {"type": "string", "enum": list(StageName)},
    "entry_id": {"type": "string", "pattern": f"^{ENTRY_ID}$"},
    "id": {"type": "integer", "minimum": 1, "maximum": 2**63 - 1},
}


def openapi_document() -> dict[str, Any]:
    """The document; every answer and request body is a named schema."""
    answers = {kind for route in ROUTES for kinds in route.answers.values() for kind in _alternatives(kinds)}
    bodies = {route.body for route in ROUTES if route.body is not None}
    types = [Problem, *sorted(answers | bodies, key=lambda kind: kind.__name__)]
    schemas, components = msgspec.json.schema_components(types, schema_hook=_schema, ref_template=_REFERENCE)
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "millstream", "version": "0.1.0", "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"secret": {"type": "http", "scheme": "bearer", "description": "WEBHOOK_API_SECRET"}},
        },
    }


class OpenApi:
    """Handler of /openapi.json, which needs no credentials."""

    def __init__(self) -> None:
        self._document = openapi_document()

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/openapi.json", self.get_document)

    async def get_document(self, _request: web.Request) -> web.Response:
        return json_response(self._document)


def _operation(route: Route, schema_of: Mapping[type, Any]) -> dict[str, Any]:
    responses = {
        str(status): _answer(route, status, [schema_of[kind] for kind in _alternatives(kinds)])
        for status, kinds in route.answers.items()
    }
    errors = route.errors if route.is_open else (401, 403, 503, *route.errors)
    for status in sorted(set(errors)):
        responses[str(status)] = {
            "description": _REASONS[status], "content": {_PROBLEM: {"schema": schema_of[Problem]}},
        }  # fmt: skip
    operation: dict[str, Any] = {
        "summary": route.summary,
        "parameters": list(_parameters(route)),
        "responses": responses,
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": route.is_body_required,
            "content": {"application/json": {"schema": schema_of[route.body]}},
        }
    if not route.is_open:
        operation["security"] = [{"secret": []}]
    return operation


def _answer(route: Route, status: int, schemas: Sequence[Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": _REASONS[status]}
    if schemas:
        answer["content"] = {route.media: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}}
    return answer


def _alternatives(kinds: type | tuple[type, ...]) -> tuple[type, ...]:
    """The types that an answer's body may have; none if it has no body."""
    if isinstance(kinds, tuple):
        return kinds
    return () if kinds is type(None) else (kinds,)


def _parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in (part[1:-1] for part in route.path.split("/") if part.startswith("{")):
        yield {"name": name, "in": "path", "required": True, "schema": _PATH_PARAMETERS[name]}
    if route.query is None:
        return
    schemas, components = msgspec.json.schema_components([route.query], schema_hook=_schema, ref_template=_REFERENCE)
    schema = components[schemas[0]["$ref"].rpartition("/")[2]]
    for name, field in schema["properties"].items():
        is_required = name in schema.get("required", ())
        yield {"name": name, "in": "query", "required": is_required, "schema": _in_query(field, components)}


def _in_query(field: dict[str, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    """A field's schema as a parameter: it is left out instead of null, and a list is separated by commas."""
    chosen = next(each for each in field.get("anyOf", [field]) if each.get("type") != "null")
    if "$ref" in chosen:
        chosen = components[chosen["$ref"].rpartition("/")[2]]
    if chosen.get("type") == "array":
        return {"type": "string", "pattern": r"^[0-9]{1,18}(,[0-9]{1,18})*$"}
    return {name: value for name, value in chosen.items() if name not in {"title", "default"}}


def _schema(kind: type) -> dict[str, Any]:
    if kind is Seconds:
        return {"type": "string", "pattern": "^[0-9]{1,6}(ms|s|m|h|d)?$", "examples": ["30s", "10m"]}
    raise NotImplementedError(f"no schema of {kind}")
