"""Problem+json errors and request ids, which every service's HTTP port has."""

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from aiohttp import web

log = structlog.get_logger()

REQUEST_ID = web.RequestKey("request_id", str)
PROBLEM = web.RequestKey("problem", str)  # why the request was refused

_BODY_S = 10.0  # to receive a small body

# For requests between servers. Qdrant sends compressed responses in chunks, and the last segment
# waits for the delayed ACK: 44 ms for each read over a kept connection. A proxy may do the same.
UNCOMPRESSED = {"Accept-Encoding": "identity"}


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an error response."""

    title: str
    status: int
    detail: str
    request_id: str


class ProblemError(Exception):
    """An error response, as problem+json (RFC 9457)."""

    def __init__(
        self, status: int, title: str, detail: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail or title)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = headers or {}


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return a JSON response; msgspec encodes Structs, dates and enums."""
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        content_type="application/json",
        headers=headers,
    )


async def read_all(request: web.Request, seconds: float = _BODY_S) -> bytes:
    """The body of a small request, as it was sent.

    Raises ProblemError: 408, 413, 415 if it is compressed.
    """
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise ProblemError(415, "Unsupported Media Type", "send the body as it is, uncompressed")
    try:
        async with asyncio.timeout(seconds):
            return await request.read()
    except TimeoutError as error:
        raise ProblemError(
            408, "Request Timeout", f"the body was not received within {seconds:g} s"
        ) from error


def problem_response(error: ProblemError, request_id: str) -> web.Response:
    body = Problem(
        title=error.title, status=error.status, detail=error.detail, request_id=request_id
    )
    return web.Response(
        body=msgspec.json.encode(body),
        status=error.status,
        content_type="application/problem+json",
        headers=error.headers,
    )


@web.middleware
async def problem_middleware(request: web.Request, handler: Any) -> web.StreamResponse:
    """Gives the request its id and turns every error into problem+json."""
    request_id = _printable(request.headers.get("X-Request-ID", "")) or uuid.uuid4().hex
    request[REQUEST_ID] = request_id
    try:
        response: web.StreamResponse = await handler(request)
    except ProblemError as error:
        request[PROBLEM] = str(error)
        response = problem_response(error, request_id)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        allowed = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
        response = problem_response(
            ProblemError(error.status, error.reason, error.text or "", allowed), request_id
        )
    except Exception:
        log.exception(
            "Request failed", method=request.method, path=request.path, request_id=request_id
        )
        response = problem_response(
            ProblemError(
                500,
                "Internal Server Error",
                "unexpected error: the log of the service has it under this request id",
            ),
            request_id,
        )
    if not response.prepared:
        response.headers["X-Request-ID"] = request_id
    return response


def _printable(text: str) -> str:
    return text if text.isascii() and text.isprintable() and len(text) <= 128 else ""
