"""A service process: settings, logs, clients, HTTP port and signals.

A service's `__main__` calls `run_process` with its name, its settings type and a `serve` coroutine;
`serve` builds what it needs from the `Process` and returns when `stop` is set.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeVar

import msgspec
import stamina
import structlog
import uvloop
from aiohttp import web
from prometheus_client import Histogram
from redis.asyncio import Redis

from shared.jobs.migrate import check_schema, deployment_of
from shared.jobs.operations import OperationLog
from shared.pipeline.failpoints import arm
from shared.pipeline.stages import StageName
from shared.pipeline.tracing import OFF, Tracing, is_on
from shared.runtime.streams.deployment import Deployment
from shared.runtime.waits import StartWaits, WaitReporter
from shared.service.clients import (
    PostgresPool,
    check_redis,
    is_postgres_unavailable,
    postgres_pool,
    redis_command,
    redis_reader,
)
from shared.service.connections import Listener, limits_of_this_process
from shared.service.errors import ConfigurationError
from shared.service.health import Check, Health, add_health_routes
from shared.service.http import problem_middleware
from shared.service.metrics import Metrics
from shared.service.request_log import RequestLog
from shared.service.settings import (
    PostgresSettings,
    ProcessSettings,
    RedisSettings,
    RuntimeSettings,
    load,
    retired_variables,
)
from shared.service.telemetry import configure_logging

log = structlog.get_logger()

_PATIENCE = 20.0  # seconds that Redis and Postgres may take to come up after this process
_UNWIND_SECONDS = 4.0  # after the drain, within the 30 s that orchestrators give before SIGKILL

_LAG_INTERVAL = 0.5

EXIT_STUCK = 70  # EX_SOFTWARE
EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h: restarting will not help


class CommonSettings(Protocol):
    """The settings that every service has."""

    @property
    def process(self) -> ProcessSettings: ...
    @property
    def redis(self) -> RedisSettings: ...
    @property
    def postgres(self) -> PostgresSettings: ...
    @property
    def runtime(self) -> RuntimeSettings: ...


S = TypeVar("S", bound=CommonSettings)
T = TypeVar("T")


class Port(msgspec.Struct, frozen=True):
    """The HTTP port: a default one that is taken gives way to a free one, one that was set does
    not.
    """

    default: int
    setting: int | None


class StoppedError(Exception):
    """The process was told to end before it was ready."""


class Process(msgspec.Struct, kw_only=True):
    """What a process shares, built once: clients, operations log, metrics, and how to stop it."""

    service: str
    instance: str  # host:pid:bootid, never reused
    stack: contextlib.AsyncExitStack
    stop: asyncio.Event
    pool: PostgresPool
    redis: Redis
    reader: Redis
    deployment: Deployment
    operations: OperationLog
    metrics: Metrics
    health: Health
    tracing: Tracing
    waits: WaitReporter | None = None  # of a stage
    status: int = 0  # that the process is to end with

    @property
    def consumer(self) -> str:
        """The name of this process in a consumer group."""
        return f"{self.service}:{self.instance}"

    def give_up(self) -> None:
        """Drain, and end with a status that has the process restarted: it cannot do its work any
        more.
        """
        self.status = EXIT_STUCK
        self.stop.set()

    async def unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Await what must be there before the service can start; raises StoppedError if it is told
        to end first.
        """
        task = asyncio.create_task(work)
        stopped = asyncio.create_task(self.stop.wait())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if task.done():
            return task.result()
        task.cancel()
        raise StoppedError

    async def listen(self, app: web.Application, host: str, port: Port) -> str:
        """Serve the app, with the health routes, until the process ends; returns its URL."""
        record = RequestLog(self.metrics).middleware()
        app.middlewares[:0] = [record, *self.tracing.middlewares, problem_middleware]
        add_health_routes(app, self.health, self.metrics)
        listener = Listener(app, self.metrics, limits_of_this_process())
        self.stack.push_async_callback(listener.close)
        url = await _bind(listener, host, port)
        log.info("Listening", url=url)
        return url


def run_process(
    service: str, settings_type: type[S], serve: Callable[[Process, S], Awaitable[None]]
) -> None:
    """The main function of a service.

    Ends the process: 0 after a drain, 78 for a setting that must be changed.

    70: it gave up, and must be started again.
    """
    try:
        settings = load(settings_type, os.environ)
        arm(settings.process.failpoint, test_mode=settings.process.test_mode)
    except ConfigurationError as error:
        sys.stderr.write(f"{service}: {error}\n")  # how to log is a setting, too
        sys.exit(EXIT_CONFIGURATION)
    instance = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
    common = settings.process
    configure_logging(
        service=service, instance=instance, level=common.log_level, log_format=common.log_format
    )
    for name in retired_variables(os.environ):
        log.warning("Setting has no effect any more", name=name)
    try:
        status = uvloop.run(_main(service, instance, settings, serve))
    except ConfigurationError as error:
        log.error("Cannot start", error=str(error))
        sys.exit(EXIT_CONFIGURATION)
    # All is written and closed. A thread that is stuck in a document must not hold the process
    # back.
    sys.stdout.flush()
    os._exit(status)


async def _main(
    service: str, instance: str, settings: S, serve: Callable[[Process, S], Awaitable[None]]
) -> int:
    """Run the service; returns the status to end with."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        try:
            pool = await _connect_postgres(settings.postgres, service)
        except OSError as error:
            raise ConfigurationError(
                f"Postgres cannot be reached ({error}): check WEBHOOK_DATABASE_URL"
            ) from error
        stack.push_async_callback(_close_pool, pool)
        await check_schema(pool)
        redis = redis_command(settings.redis.redis_url)
        stack.push_async_callback(redis.aclose)
        deployment = await _claim(redis, pool)
        reader = redis_reader(settings.redis.redis_url)
        stack.push_async_callback(reader.aclose)
        tracing = open_tracing(service, instance, os.environ)
        stack.push_async_callback(tracing.close)
        operations = OperationLog(pool)
        health = Health(
            checks={"redis": _check_redis(redis), "postgres": _check_postgres(pool)},
            instance=instance,
        )
        process = Process(
            service=service, instance=instance, stack=stack, stop=stop, pool=pool, redis=redis,
            reader=reader, deployment=deployment, operations=operations, metrics=Metrics(),
            health=health, tracing=tracing,
        )  # fmt: skip
        flusher = asyncio.create_task(operations.run(), name="operations")
        stack.push_async_callback(operations.flush)
        stack.callback(flusher.cancel)
        if service in set(StageName):
            _report_waits(process, StageName(service))
        watch = asyncio.create_task(
            watch_event_loop(process.metrics.event_loop_lag), name="event loop lag"
        )
        stack.callback(watch.cancel)
        stopping = asyncio.create_task(
            _mark_draining(process, settings.runtime.drain_timeout), name="draining"
        )
        stack.callback(stopping.cancel)
        with contextlib.suppress(StoppedError):
            await serve(process, settings)
        log.info("Stopped", status=process.status)
    return process.status


async def _claim(redis: Redis, pool: PostgresPool) -> Deployment:
    """Check Redis, and claim its keys for the deployment of this database."""
    await check_redis(redis, _PATIENCE)
    deployment = Deployment(redis, await deployment_of(pool))
    await deployment.claim()
    return deployment


def _report_waits(process: Process, stage: StageName) -> None:
    """Publish what this process waits for, from its start to its end."""
    reporter = WaitReporter(
        process.redis, stage, process.consumer, StartWaits(process.health.checks).look
    )
    process.waits = reporter
    process.health.complete = reporter.complete
    process.stack.callback(asyncio.create_task(reporter.run(), name="waits").cancel)


def open_tracing(service: str, instance: str, environ: Mapping[str, str]) -> Tracing:
    """Return the traces that the environment asks for.

    Raises ConfigurationError for what cannot be done.
    """
    if not is_on(environ):
        return OFF
    # Imported only if traces are on: the SDK costs memory and start-up time.
    from shared.pipeline.open_telemetry import OpenTelemetry, exporting_provider  # noqa: PLC0415

    return OpenTelemetry(exporting_provider(service, instance, environ))


@stamina.retry(on=is_postgres_unavailable, attempts=None, timeout=_PATIENCE, wait_max=2.0)
async def _connect_postgres(settings: PostgresSettings, service: str) -> PostgresPool:
    """Connect; servers that start together with this process get some time to come up."""
    return await postgres_pool(settings.database_url, name=service)


async def watch_event_loop(lag: Histogram) -> None:
    """Measure how late timers ring, until cancelled: what blocks the event loop delays everything
    in the process.
    """
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_INTERVAL
        await asyncio.sleep(_LAG_INTERVAL)
        lag.observe(max(0.0, loop.time() - due))


async def _close_pool(pool: PostgresPool) -> None:
    try:
        async with asyncio.timeout(5.0):
            await pool.close()
    except TimeoutError:
        pool.terminate()


async def _mark_draining(process: Process, drain_timeout: float) -> None:
    await process.stop.wait()
    process.health.is_draining = True
    log.info("Draining")
    await asyncio.sleep(drain_timeout + _UNWIND_SECONDS)
    # A frozen server holds something; what was in flight was given back.
    log.error("Not stopped in time")
    sys.stdout.flush()
    os._exit(EXIT_STUCK)


def _check_redis(redis: Redis) -> Check:
    async def check() -> None:
        await redis.ping()

    return check


def _check_postgres(pool: PostgresPool) -> Check:
    async def check() -> None:
        await pool.fetchval("SELECT 1")

    return check


async def _bind(listener: Listener, host: str, port: Port) -> str:
    wanted = port.default if port.setting is None else port.setting
    try:
        bound = await listener.start(host, wanted)
    except OSError:
        if port.setting is not None:
            raise
        log.warning("Default port is taken, using a free one", port=wanted)
        bound = await listener.start(host, 0)
    return f"http://{host}:{bound}"
