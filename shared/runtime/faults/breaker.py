"""Circuit breakers: while a dependency is unavailable, its stage reads nothing.

An outage costs no document an attempt. A canary tells whether the dependency or the documents are
at fault. It is a request that must succeed if the dependency is healthy: one fixed word to embed, a
read of the store.
"""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import structlog

from shared.service.health import Wait, WaitState
from shared.service.metrics import Metrics

log = structlog.get_logger()

Canary = Callable[[], Awaitable[object]]

_CANARY_TIMEOUT = 10.0


class Pauses(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds before canaries of an open breaker."""

    first: float = 0.25  # doubled with every failure
    longest: float = 5.0

    def after(self, pause: float) -> float:
        """The pause that follows one of `pause` seconds, 0 for the first."""
        return min(max(self.first, 2 * pause), self.longest)


class Breaker:
    """The breaker of one dependency: closed until a canary fails, open until one succeeds."""

    def __init__(
        self,
        service: str,
        canary: Canary,
        metrics: Metrics,
        on_change: Callable[[], None],
        pauses: Pauses = Pauses(),  # noqa: B008 - frozen
    ) -> None:
        """`on_change` is called when it has opened or closed."""
        self._service = service
        self._on_change = on_change
        self._canary = canary
        self._gauge = metrics.open_breakers.labels(service)
        self._closed = asyncio.Event()
        self._closed.set()
        self._opened = asyncio.Event()
        self._trial = asyncio.Lock()
        self._pauses = pauses
        self._wait: Wait | None = None

    @property
    def wait(self) -> Wait | None:
        """Since when it has been open, and why; None while it is closed."""
        return self._wait if self.is_open else None

    @property
    def is_open(self) -> bool:
        return not self._closed.is_set()

    async def is_unavailable(self) -> bool:
        """Ask the canary after a request failed.

        True opens the breaker, False means that the request is at fault.
        """
        async with self._trial:  # one canary answers for all requests that fail together
            if self.is_open:
                return True
            error = await self._ask()
            if error is None:
                return False
            self.open(error)
            return True

    def open(self, error: Exception) -> None:
        """Mark the dependency unavailable, and ask its canary again after a pause."""
        reason = str(error) or type(error).__name__
        self._wait = Wait(
            dependency=self._service,
            state=WaitState.UNREACHABLE,
            since=dt.datetime.now(dt.UTC),
            reason=reason,
        )
        log.warning("Breaker opened", dependency=self._service, error=reason)
        self._gauge.set(1)
        self._closed.clear()
        self._opened.set()
        self._on_change()

    async def recover(self) -> None:
        """Ask the canary of an open breaker until it succeeds, and close; run until cancelled."""
        while True:
            await self._opened.wait()
            pause = self._pauses.after(0.0)
            await asyncio.sleep(pause)
            while self.is_open and not await self.is_well():
                pause = self._pauses.after(pause)
                await asyncio.sleep(pause)

    async def is_well(self) -> bool:
        """Ask the canary; if it succeeds, close an open breaker."""
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

    def __init__(
        self,
        canaries: Mapping[str, Canary],
        metrics: Metrics,
        pauses: Pauses = Pauses(),  # noqa: B008 - frozen
    ) -> None:
        self._breakers = {
            service: Breaker(service, canary, metrics, lambda: None, pauses)
            for service, canary in canaries.items()
        }

    @property
    def waits(self) -> list[Wait]:
        """One for each open breaker."""
        return [wait for breaker in self._breakers.values() if (wait := breaker.wait) is not None]

    @property
    def is_any_open(self) -> bool:
        return any(breaker.is_open for breaker in self._breakers.values())

    async def unavailable(self, services: set[str]) -> set[str]:
        """Return which of these dependencies are unavailable.

        One without a canary counts as unavailable.
        """
        known = [service for service in services if service in self._breakers]
        answers = await asyncio.gather(
            *(self._breakers[service].is_unavailable() for service in known)
        )
        return (services - set(known)) | {
            service for service, is_down in zip(known, answers, strict=True) if is_down
        }

    async def recover(self) -> None:
        """Close breakers as their dependencies become available again; run until cancelled."""
        await asyncio.gather(*(breaker.recover() for breaker in self._breakers.values()))

    async def wait_closed(self) -> None:
        """Wait until no breaker is open."""
        while self.is_any_open:
            for breaker in self._breakers.values():
                await breaker.wait_closed()
