"""The health routes that every service serves on its own port, without credentials."""

import asyncio
import datetime as dt
import enum
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from shared.service.http import ProblemError, json_response
from shared.service.metrics import Metrics
from shared.service.routes import add_routes, route

_PROBE_TIMEOUT_S = 2.0  # a frozen dependency must not block /health

Check = Callable[[], Awaitable[None]]


class WaitState(enum.StrEnum):
    """How a dependency fails a stage."""

    UNREACHABLE = "unreachable"  # requests fail, and so does the canary
    FAILING = "failing"  # the canary succeeds, but nearly all documents of a target fail
    # Batches are in flight, none ends, and the dependency gives no answer.
    NOT_ANSWERING = "not_answering"


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """One dependency that a worker waits for."""

    dependency: str  # redis, postgres, tei or qdrant
    state: WaitState
    since: dt.datetime
    reason: str  # the error in the words of the server or the client


class StageStatus(enum.StrEnum):
    """Whether a stage works, or could work if there were entries."""

    HEALTHY = "healthy"
    WAITING = "waiting"  # at least one worker waits for a dependency
    NO_WORKERS = "no_workers"  # no consumer asked for entries within one lease


class StageWait(Wait, frozen=True, kw_only=True):
    """A dependency that workers of a stage wait for.

    `since` and `reason` are those of the longest wait.
    """

    workers: int  # that wait for it


class StageHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One stage at one moment."""

    status: StageStatus
    workers: int
    entries: int  # batch messages in its streams, waiting and in flight
    waits: list[StageWait]


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of /health: each service is `healthy`, or `unhealthy: ` and the reason."""

    status: str  # healthy or degraded
    services: dict[str, str]
    timestamp: dt.datetime
    # Of ingest, after its first read of Redis.
    stages: dict[str, StageHealth] | msgspec.UnsetType = msgspec.UNSET


class Health(msgspec.Struct, kw_only=True):
    """The state of a process: a check for each dependency, which raises if it is unhealthy."""

    checks: dict[str, Check]
    instance: str  # host:pid:boot id, as in log lines
    is_ready: bool = False
    is_draining: bool = False
    # Adds what the checks do not cover.
    complete: Callable[[HealthReport], HealthReport] = lambda report: report


class Liveness(msgspec.Struct, frozen=True, kw_only=True):
    status: str


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    status: str
    instance: str  # of the process that answers, which may be another one on the same port


class HealthApi:
    """Handlers of /health, /livez, /readyz and /metrics."""

    def __init__(self, health: Health, metrics: Metrics) -> None:
        self._health = health
        self._metrics = metrics

    @route("GET /health", "State of the service's dependencies", {200: HealthReport},
           is_open=True, is_lenient=True)  # fmt: skip
    async def get_health(self, _request: web.Request) -> web.Response:
        checks = self._health.checks
        states = await asyncio.gather(*(_probe(check) for check in checks.values()))
        services = dict(zip(checks, states, strict=True))
        status = "healthy" if all(state == "healthy" for state in states) else "degraded"
        now = dt.datetime.now(dt.UTC)
        report = HealthReport(status=status, services=services, timestamp=now)
        return json_response(self._health.complete(report))

    @route("GET /livez", "Liveness of the process", {200: Liveness}, is_open=True, is_lenient=True)
    async def get_livez(self, _request: web.Request) -> web.Response:
        return json_response(Liveness(status="alive"))

    @route(
        "GET /readyz",
        "Readiness for work",
        {200: Readiness},
        errors=(503,),
        is_open=True,
        is_lenient=True,
    )
    async def get_readyz(self, _request: web.Request) -> web.Response:
        if self._health.is_ready and not self._health.is_draining:
            return json_response(Readiness(status="ready", instance=self._health.instance))
        raise ProblemError(503, "Not Ready", "draining" if self._health.is_draining else "starting")

    @route(
        "GET /metrics",
        "Metrics in the text format of Prometheus",
        {200: str},
        media="text/plain",
        is_open=True,
        is_lenient=True,
    )
    async def get_metrics(self, _request: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=self._metrics.render(), headers=headers)


def add_health_routes(app: web.Application, health: Health, metrics: Metrics) -> None:
    """Serve the health routes."""
    add_routes(app, HealthApi(health, metrics))


async def _probe(check: Check) -> str:
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            await check()
    except Exception as error:
        return f"unhealthy: {str(error) or type(error).__name__}"
    return "healthy"
