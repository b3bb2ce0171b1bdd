"""Bodies in, envelopes out: decoding requests, Qdrant's reply envelope, errors and the API key."""

import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from local.qdrant.errors import ApiError

MAX_BODY_BYTES = 32 * 1024 * 1024  # the server's default

log = structlog.get_logger()

T = TypeVar("T")
Endpoint = Callable[[web.Request], Awaitable[Any]]
_OPEN = frozenset({"/", "/healthz", "/readyz", "/livez"})


def endpoint(handler: Endpoint) -> Handler:
    """A route from a coroutine that returns the result: wraps it as `{"result", "status": "ok",
    "time"}`.
    """

    async def respond(request: web.Request) -> web.Response:
        started = time.perf_counter()
        result = await handler(request)
        return _json(200, {"result": result, "status": "ok", "time": time.perf_counter() - started})

    return respond


async def read_body(request: web.Request, decoder: msgspec.json.Decoder[T]) -> T:
    """Receive and decode a body; ApiError 413 if it is too large, 400 if it is not what the route
    takes.
    """
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES)
    content = await request.read()
    try:
        return decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError.malformed(error) from error


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure as `{"status": {"error": ...}, "time": 0}`."""
    try:
        return await handler(request)
    except Exception as error:  # one request's failure, reported to its sender
        return _failure(request, error)


@web.middleware
async def compression(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Compress an answer if the request allows it, in chunks of unknown length, as the real server
    does.
    """
    answer = await handler(request)
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        answer.enable_compression(web.ContentCoding.gzip)
        answer.enable_chunked_encoding()
    return answer


def authenticator(api_key: str) -> Middleware:
    """Middleware that asks for `api_key` in the header of that name or as Bearer, but on the health
    routes.
    """

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in _OPEN:
            given = request.headers.get("api-key") or request.headers.get(
                "Authorization", ""
            ).removeprefix("Bearer ")
            if not given:
                raise ApiError(401, "Must provide an API key or an Authorization bearer token")
            if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), api_key.encode()):
                raise ApiError(401, "Invalid API key or JWT")
        return await handler(request)

    return authenticate


def _failure(request: web.Request, error: Exception) -> web.Response:
    match error:
        case ApiError():
            status, message = error.status, error.message
        case web.HTTPRequestEntityTooLarge():
            status, message = (
                413,
                f"JSON payload is larger than allowed (limit: {MAX_BODY_BYTES} bytes).",
            )
        case web.HTTPException():
            status, message = (
                error.status,
                f"{error.reason}: this server has no {request.method} {request.path}",
            )
        case ConnectionError() | web.RequestPayloadError():
            status, message = (
                400,
                f"Payload error: {error}",
            )  # mostly a client that went away: nobody reads this
        case RecursionError():
            status, message = 400, "Format error in JSON body: nested too deeply"
        case _:
            log.error("Request failed", method=request.method, path=request.path, exc_info=error)
            status, message = 500, f"Service internal error: {error}"
    return _json(status, {"status": {"error": message}, "time": 0})


def _json(status: int, body: Any) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json"
    )
