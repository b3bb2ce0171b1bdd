"""Finds out what this worker waits for, and publishes it every two seconds while it waits.

Four sources: an open breaker; a target that rests; a stall (batches are in flight, none ends, and a
dependency gives no answer); before the stage is ready, a health check that fails.
"""

import asyncio
import datetime as dt
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.pipeline.stages import StageName
from shared.pipeline.waits import WAITS, WorkerWaits
from shared.runtime.faults.breaker import Canary
from shared.runtime.slots import Slots
from shared.runtime.streams.lua import script
from shared.service.health import Check, HealthReport, Wait, WaitState

log = structlog.get_logger()

_INTERVAL = 2.0
_LIFETIME = 10.0  # seconds that a report outlives its worker
# Seconds without the end of a batch; with a probe less than the 10 s of the command line.
_STALLED_AFTER = 5.0
# A canary embeds a word. On a slow TEI a batch may take minutes, and the canaries of many embedders
# would add up.
_CANARY_INTERVAL = 15.0
_PROBE_TIMEOUT = 3.0

Look = Callable[[], Awaitable[Sequence[Wait]]]


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class WaitReporter:
    """Publishes the waits of one worker."""

    def __init__(self, redis: Redis, stage: StageName, consumer: str, look: Look) -> None:
        """`look` returns what the worker waits for; it is replaced once the stage is ready."""
        self.look = look
        self.latest: Sequence[Wait] = ()
        self._worker = WorkerWaits(stage=stage, consumer=consumer, waits=[])
        self._publish = redis.register_script(script("waits"))
        self._is_published = False

    async def run(self) -> None:
        """Look and publish until cancelled.

        While Redis is unavailable nothing is published; /health says so.
        """
        while True:
            try:
                await self.report()
            except (RedisError, OSError) as error:
                log.debug("Waits not published", error=str(error))
            await asyncio.sleep(_INTERVAL)

    async def report(self) -> None:
        """Look once, and publish the waits if there are any or were any.

        Raises RedisError and OSError.
        """
        self.latest = await self.look()
        if not self.latest and not self._is_published:
            return
        waits = msgspec.structs.replace(self._worker, waits=list(self.latest))
        report = msgspec.json.encode(waits) if self.latest else b""
        await self._publish(keys=[WAITS], args=[waits.consumer, report, int(_LIFETIME * 1000)])
        self._is_published = bool(self.latest)

    def complete(self, report: HealthReport) -> HealthReport:
        """The health report with every dependency that this worker waits for marked unhealthy."""
        if not self.latest:
            return report
        waiting = {each.dependency: f"unhealthy: {describe(each)}" for each in self.latest}
        return msgspec.structs.replace(
            report, status="degraded", services={**report.services, **waiting}
        )


class StartWaits:
    """What a worker waits for before its stage is ready: the health checks that fail."""

    def __init__(
        self, checks: Mapping[str, Check], now: Callable[[], dt.datetime] = utc_now
    ) -> None:
        """`checks` may grow while the service starts."""
        self._checks = checks
        self._now = now
        self._since: dict[str, dt.datetime] = {}

    async def look(self) -> list[Wait]:
        """Run all checks, each for three seconds at most."""
        errors = await _errors_of(dict(self._checks))
        self._since = {service: self._since.get(service, self._now()) for service in errors}
        return [
            Wait(
                dependency=service,
                state=WaitState.UNREACHABLE,
                since=self._since[service],
                reason=_text(error),
            )
            for service, error in errors.items()
        ]


class StageWaits:
    """What a working stage waits for: dependencies with open breakers, and those that stall its
    batches.
    """

    def __init__(
        self,
        known: Callable[[], Sequence[Wait]],
        checks: Mapping[str, Check],
        canaries: Mapping[str, Canary],
        slots: Slots,
        now: Callable[[], dt.datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`known` returns the waits of open breakers and of targets that rest. `checks` are cheap;
        `canaries` need not be.
        """
        self._known = known
        self._checks = checks
        self._canaries = canaries
        self._slots = slots
        self._now = now
        self._clock = clock
        # `quiet_since` of the slots when the waits below were found.
        self._stall: float | None = None
        self._stalling: dict[str, Wait] = {}
        self._canary_after = _CANARY_INTERVAL  # seconds of the stall

    async def look(self) -> list[Wait]:
        """Return what is known; during a stall, ask the dependencies as well."""
        known = self._known()
        return [*known, *await self._look_for_stall({wait.dependency for wait in known})]

    async def _look_for_stall(self, known: set[str]) -> list[Wait]:
        """The dependencies that failed a probe since the last batch ended.

        Such a dependency stays named until a batch ends: a server that answers every second probe
        would otherwise come and go in each report.
        """
        since = self._slots.quiet_since
        if since != self._stall:
            self._stall, self._stalling, self._canary_after = since, {}, _CANARY_INTERVAL
        if since is None or (seconds := self._clock() - since) < _STALLED_AFTER:
            return []
        probes: Mapping[str, Callable[[], Awaitable[object]]] = self._checks
        if seconds >= self._canary_after:
            probes, self._canary_after = self._canaries, seconds + _CANARY_INTERVAL
        unasked = {
            s: probe for s, probe in probes.items() if s not in self._stalling and s not in known
        }
        begin = self._now() - dt.timedelta(seconds=seconds)
        for service, error in (await _errors_of(unasked)).items():
            self._stalling[service] = Wait(
                dependency=service, state=WaitState.NOT_ANSWERING, since=begin, reason=_text(error)
            )
        return [wait for service, wait in self._stalling.items() if service not in known]


def describe(wait: Wait) -> str:
    """A wait in words, without its dependency: `unreachable since 19:24:05 UTC: ConnectError`."""
    return f"{wait.state.replace('_', ' ')} since {wait.since:%H:%M:%S} UTC: {wait.reason}"


async def _errors_of(checks: Mapping[str, Callable[[], Awaitable[object]]]) -> dict[str, Exception]:
    """Run all checks at once; the error of each one that failed."""
    answers = await asyncio.gather(*(_error_of(check) for check in checks.values()))
    return {
        service: error for service, error in zip(checks, answers, strict=True) if error is not None
    }


async def _error_of(check: Callable[[], Awaitable[object]]) -> Exception | None:
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT):
            await check()
    except TimeoutError:
        return TimeoutError(f"no answer within {_PROBE_TIMEOUT:g} s")
    except Exception as error:
        return error
    return None


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
