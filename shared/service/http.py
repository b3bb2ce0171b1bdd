"""What every service's HTTP port has: problem+json errors, request ids, and the open health routes."""

import asyncio
import datetime
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import structlog
from aiohttp import web

from shared.service.metrics import Metrics

log = structlog.get_logger()

REQUEST_ID = web.RequestKey("request_id", str)

# For requests between our own servers. Qdrant sends compressed answers in chunks, whose last segment waits for our
# delayed ACK: 44 ms for each read over a kept connection. Elsewhere a proxy on the way may do the same.
UNCOMPRESSED = {"Accept-Encoding": "identity"}

_PROBE_TIMEOUT = 2.0  # a frozen dependency must not freeze the health page

Check = Callable[[], Awaitable[None]]


class Health(msgspec.Struct, kw_only=True):
    """What the health routes show: a check per dependency (raises why it is unhealthy) and the process's state."""

    checks: dict[str, Check]
    instance: str  # host:pid:boot id, as in log lines
    is_ready: bool = False
    is_draining: bool = False


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """What /health answers: each service is `healthy`, or `unhealthy: ` and why."""

    status: str  # healthy or degraded
    services: dict[str, str]
    timestamp: datetime.datetime


class Liveness(msgspec.Struct, frozen=True, kw_only=True):
    status: str


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    status: str
    instance: str  # the process that answers: another one may have the port that was expected to be its own


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an answer that is an error."""

    title: str
    status: int
    detail: str
    request_id: str


class ProblemError(Exception):
    """An answer that is an error, as problem+json (RFC 9457)."""

    def __init__(self, status: int, title: str, detail: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail or title)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = headers or {}


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer; Structs, dates and enums go out as msgspec encodes them."""
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json", headers=headers
    )


def problem_response(error: ProblemError, request_id: str) -> web.Response:
    body = Problem(title=error.title, status=error.status, detail=error.detail, request_id=request_id)
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
        response = problem_response(error, request_id)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        allowed = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
        response = problem_response(ProblemError(error.status, error.reason, error.text or "", allowed), request_id)
    except Exception:
        log.exception("Request failed", method=request.method, path=request.path, request_id=request_id)
        response = problem_response(
            ProblemError(500, "Internal Server Error", "an unexpected error; the log has it under this request id"),
            request_id,
        )
    if not response.prepared:
        response.headers["X-Request-ID"] = request_id
    return response


def add_health_routes(app: web.Application, health: Health, metrics: Metrics) -> None:
    """Adds /health, /livez, /readyz and /metrics, which need no credentials."""

    async def get_health(_request: web.Request) -> web.Response:
        states = await asyncio.gather(*(_probe(check) for check in health.checks.values()))
        services = dict(zip(health.checks, states, strict=True))
        status = "healthy" if all(state == "healthy" for state in services.values()) else "degraded"
        now = datetime.datetime.now(datetime.UTC)
        return json_response(HealthReport(status=status, services=services, timestamp=now))

    async def get_livez(_request: web.Request) -> web.Response:
        return json_response(Liveness(status="alive"))

    async def get_readyz(_request: web.Request) -> web.Response:
        if health.is_ready and not health.is_draining:
            return json_response(Readiness(status="ready", instance=health.instance))
        raise ProblemError(503, "Not Ready", "draining" if health.is_draining else "starting")

    async def get_metrics(_request: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app.router.add_get("/health", get_health)
    app.router.add_get("/livez", get_livez)
    app.router.add_get("/readyz", get_readyz)
    app.router.add_get("/metrics", get_metrics)


async def _probe(check: Check) -> str:
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT):
            await check()
    except Exception as error:
        return f"unhealthy: {str(error) or type(error).__name__}"
    return "healthy"


def _printable(text: str) -> str:
    return text if text.isascii() and text.isprintable() and len(text) <= 128 else ""
