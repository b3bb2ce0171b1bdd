"""Circuit breakers: while a dependency is away, the stage reads nothing and no document pays for it.

Whether it is the dependency or the documents is judged by a canary, a request that must succeed if the dependency is
well: one fixed word to embed, a read of the store.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import structlog

from shared.runtime.faults.epidemic import Complaint
from shared.runtime.time_limit import TimeLimit
from shared.service.errors import DependencyError
from shared.service.metrics import Metrics

log = structlog.get_logger()

Canary = Callable[[], Awaitable[object]]

_CANARY_TIMEOUT = 10.0
_FIRST_PAUSE = 0.25  # seconds between canaries, doubled up to the longest
_LONGEST_PAUSE = 5.0
_DISTRUST = 30.0  # seconds until some documents are tried again with a dependency that found all at fault


class Breaker:
    """The breaker of one dependency: closed until a canary fails, open until one succeeds."""

    def __init__(self, service: str, canary: Canary, metrics: Metrics, on_change: Callable[[], None]) -> None:
        """`on_change` is called when it has opened or closed."""
        self._service = service
        self._on_change = on_change
        self._canary = canary
        self._gauge = metrics.open_breakers.labels(service)
        self._closed = asyncio.Event()
        self._closed.set()
        self._opened = asyncio.Event()
        self._trial = asyncio.Lock()
        self._pause = _FIRST_PAUSE

    @property
    def is_open(self) -> bool:
        return not self._closed.is_set()

    async def is_away(self) -> bool:
        """Ask the canary, after a request failed: True opens the breaker, False means that the request was at fault."""
        async with self._trial:  # those that fail together are judged together
            if self.is_open:
                return True
            error = await self._ask()
            if error is None:
                return False
            self.open(error)
            return True

    def open(self, error: Exception, pause: float = _FIRST_PAUSE) -> None:
        """Take the dependency for away because of this error; ask its canary again after `pause` seconds."""
        self._pause = pause
        log.warning("Breaker opened", dependency=self._service, error=str(error) or type(error).__name__)
        self._gauge.set(1)
        self._closed.clear()
        self._opened.set()
        self._on_change()

    async def mend(self) -> None:
        """Whenever the breaker is open, ask the canary until it succeeds, and close; until cancelled."""
        while True:
            await self._opened.wait()
            pause = self._pause
            await asyncio.sleep(pause)
            while self.is_open and not await self.is_well():
                pause = min(2 * pause, _LONGEST_PAUSE)
                await asyncio.sleep(pause)

    async def is_well(self) -> bool:
        """Ask the canary; if it succeeds, an open breaker closes."""
        if await self._ask() is not None:
            return False
        if self.is_open:
            log.warning("Breaker closed", dependency=self._service)
            self._gauge.set(0)
            self._opened.clear()
            self._closed.set()
            self._on_change()
        return True

    async def wait_closed(self) -> None:
        await self._closed.wait()

    async def _ask(self) -> Exception | None:
        try:
            async with asyncio.timeout(_CANARY_TIMEOUT):
                await self._canary()
        except Exception as error:
            return error
        return None


class Breakers:
    """The breakers of all dependencies that a stage needs."""

    def __init__(self, canaries: Mapping[str, Canary], metrics: Metrics) -> None:
        self._breakers = {
            service: Breaker(service, canary, metrics, self._hold_limits) for service, canary in canaries.items()
        }
        self._limits: set[TimeLimit] = set()
        self._are_held = False

    @property
    def is_any_open(self) -> bool:
        return any(breaker.is_open for breaker in self._breakers.values())

    @contextlib.asynccontextmanager
    async def time_limit(self, seconds: float) -> AsyncIterator[None]:
        """Raise TimeoutError when the block takes longer; while a breaker is open the time stands still."""
        async with TimeLimit(seconds) as limit:
            if self._are_held:
                limit.hold()
            self._limits.add(limit)
            try:
                yield
            finally:
                self._limits.discard(limit)

    async def are_away(self, services: set[str]) -> set[str]:
        """Which of these dependencies are really away; one without a canary is taken at its word."""
        known = [service for service in services if service in self._breakers]
        answers = await asyncio.gather(*(self._breakers[service].is_away() for service in known))
        return (services - set(known)) | {service for service, away in zip(known, answers, strict=True) if away}

    def distrust(self, complaint: Complaint) -> None:
        """Open a dependency's breaker for a while, although its canary is good: it finds every document at fault."""
        log.error("Documents fail alike", dependency=complaint.dependency, code=complaint.code)
        breaker = self._breakers.get(complaint.dependency)
        if breaker is not None and not breaker.is_open:
            breaker.open(DependencyError(complaint.dependency, f"nearly all documents: {complaint.code}"), _DISTRUST)

    async def mend(self) -> None:
        """Close breakers again as their dependencies come back, until cancelled."""
        await asyncio.gather(*(breaker.mend() for breaker in self._breakers.values()))

    async def wait_closed(self) -> None:
        """Wait until no breaker is open."""
        while self.is_any_open:
            for breaker in self._breakers.values():
                await breaker.wait_closed()

    def _hold_limits(self) -> None:
        if self.is_any_open == self._are_held:
            return
        self._are_held = self.is_any_open
        for limit in self._limits:
            if self._are_held:
                limit.hold()
            else:
                limit.go_on()
