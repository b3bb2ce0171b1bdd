"""A route of an HTTP API, declared once, next to its handler.

The signature of the handler says what the route takes: `query` and `body` are Structs, every other
argument is a parameter of the path. The router parses requests by it (`add_routes`), and ingest's
OpenAPI document is made from it.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from shared.service.http import read_all
from shared.service.parameters import read_body, read_path, read_query

_ROUTE = "_route"  # the attribute of a handler that holds its declaration

Answers = Mapping[int, type | tuple[type, ...]]  # by status; several types are alternatives
H = TypeVar("H", bound=Callable[..., Awaitable[web.StreamResponse]])


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path, with all that a client may send and will get."""

    method: str
    path: str
    summary: str
    answers: Answers
    errors: tuple[int, ...] = ()  # besides those that follow from the parameters, see `all_errors`
    query: type[msgspec.Struct] | None = None
    path_parameters: Mapping[str, Any] = {}  # name -> type
    body: type[msgspec.Struct] | None = None
    is_body_read_by_handler: bool = False  # then `body` only describes it
    is_open: bool = False  # needs no credentials
    is_lenient: bool = False  # ignores parameters that it does not know
    is_described: bool = True  # in the OpenAPI document
    media: str = "application/json"

    @property
    def all_errors(self) -> frozenset[int]:
        """The statuses of its errors, but for those that every route has."""
        found = set(self.errors)
        if self.path_parameters:
            found.add(404)
        if self.query is not None:
            found.add(422)
        if self.body is not None:
            found |= {400, 413, 422}
        return frozenset(found)

    @property
    def is_body_required(self) -> bool:
        """Whether a field of the body has no default: an empty body stands for `{}`."""
        return self.body is not None and any(
            field.required for field in msgspec.structs.fields(self.body)
        )


def route(line: str, summary: str, answers: Answers, **options: Any) -> Callable[[H], H]:
    """Declare the decorated handler as the route `line`, such as `GET /api/jobs/{job_id}`.

    `options` are fields of Route. A `body` among them is read by the handler itself, and only
    described here.
    """
    method, path = line.split()

    def declare(handler: H) -> H:
        # After self and the request.
        taken = dict(list(inspect.signature(handler).parameters.items())[2:])
        types = {name: parameter.annotation for name, parameter in taken.items()}
        query, body = types.pop("query", None), types.pop("body", None)
        declared = Route(
            method=method,
            path=path,
            summary=summary,
            answers=answers,
            query=query,
            path_parameters=types,
            **{"body": body, "is_body_read_by_handler": body is None, **options},
        )
        setattr(handler, _ROUTE, declared)
        return handler

    return declare


def routes_of(api: type) -> list[Route]:
    """The routes that a class declares, in order."""
    return [declared for _, declared in _declarations(api)]


def add_routes(app: web.Application, api: object) -> None:
    """Serve the routes that the class of `api` declares.

    A request with a bad parameter gets its error before the handler is called.
    """
    for name, declared in _declarations(type(api)):
        handle = _parsing(declared, getattr(api, name))
        if declared.method == "GET":
            app.router.add_get(declared.path, handle)  # and HEAD
        else:
            app.router.add_route(declared.method, declared.path, handle)


def _declarations(api: type) -> Iterator[tuple[str, Route]]:
    for name, value in vars(api).items():
        declared = getattr(value, _ROUTE, None)
        if declared is not None:
            yield name, declared


def _parsing(
    declared: Route, handler: Callable[..., Awaitable[web.StreamResponse]]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        arguments: dict[str, Any] = {
            name: read_path(name, request.match_info[name], kind)
            for name, kind in declared.path_parameters.items()
        }
        query = read_query(
            request.query, declared.query or msgspec.Struct, is_lenient=declared.is_lenient
        )
        if declared.query is not None:
            arguments["query"] = query
        if declared.body is not None and not declared.is_body_read_by_handler:
            arguments["body"] = read_body(await read_all(request), declared.body)
        return await handler(request, **arguments)

    return handle
