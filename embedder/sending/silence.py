"""A time limit that counts a server's silence, so that a request behind a long queue is not given
up.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from shared.service.errors import DependencyError

_ASK_S = 5.0  # for the answer to `ask`


class SilenceLimit:
    """Ends requests to one server once nothing has been heard of it for some time.

    An answer to any request is a sign of life. If there was none, the server is asked before a
    request is ended.
    """

    def __init__(self, limit_s: float, ask: Callable[[], Awaitable[None]]) -> None:
        """`ask` returns if the server answers, and raises DependencyError otherwise."""
        self._limit_s = limit_s
        self._ask = ask
        self._heard_at = 0.0
        self._heard = asyncio.Event()

    def heard(self) -> None:
        """Note a sign of life."""
        self._heard_at = asyncio.get_running_loop().time()
        self._heard.set()

    async def wait_heard(self) -> None:
        """Wait for the next sign of life."""
        self._heard.clear()
        await self._heard.wait()

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Watch the server during one request. Raises DependencyError when it has been silent for
        too long.
        """
        try:
            async with asyncio.timeout(None) as timeout:
                with _Watch(self, timeout):
                    yield
        except TimeoutError as error:
            raise DependencyError("tei", f"no sign of life for {self._limit_s:g} s") from error

    def left_s(self, started: float) -> float:
        """Seconds until a request that started then has waited in silence for too long."""
        return max(started, self._heard_at) + self._limit_s - asyncio.get_running_loop().time()

    async def is_alive(self) -> bool:
        """Ask the server."""
        try:
            async with asyncio.timeout(min(self._limit_s, _ASK_S)):
                await self._ask()
        except (DependencyError, TimeoutError):
            return False
        self.heard()
        return True


class _Watch:
    """The timer of one request."""

    def __init__(self, limit: SilenceLimit, timeout: asyncio.Timeout) -> None:
        self._limit = limit
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._asking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._timer = self._loop.call_later(self._limit.left_s(self._started), self._look)

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()

    def _look(self) -> None:
        left_s = self._limit.left_s(self._started)
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self._asking = self._loop.create_task(self._ask(), name="tei-sign-of-life")

    async def _ask(self) -> None:
        if await self._limit.is_alive():
            self._look()
        else:
            self._timeout.reschedule(self._loop.time())
