"""A time limit that can be held, while a document waits or a dependency is unavailable."""

import asyncio
import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Self


class TimeLimit:
    """An async context manager that cancels its block after `seconds` and raises TimeoutError.

    Its time is stopped while there are more calls of `hold` than of `go_on`. Without seconds
    there is no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._left = seconds
        self._holds = 0
        self._timeout: asyncio.Timeout | None = None  # None outside of the block

    async def __aenter__(self) -> Self:
        self._timeout = await asyncio.timeout(None).__aenter__()
        self._reschedule()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        timeout, self._timeout = self._timeout, None
        assert timeout is not None
        await timeout.__aexit__(kind, error, traceback)

    def hold(self) -> None:
        """Stop the time; may be called from outside of the block's task."""
        if self._timeout is not None and (when := self._timeout.when()) is not None:
            self._left = max(0.0, when - asyncio.get_running_loop().time())
        self._holds += 1
        self._reschedule()

    def go_on(self) -> None:
        """Undo one `hold`."""
        self._holds -= 1
        self._reschedule()

    def renew(self) -> None:
        """Begin again with all of the time: there was progress."""
        self._left = self._seconds
        self._reschedule()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Stop the time during the block."""
        self.hold()
        try:
            yield
        finally:
            self.go_on()

    def _reschedule(self) -> None:
        if self._timeout is None or self._timeout.expired():
            return
        now = asyncio.get_running_loop().time()
        is_running = self._left is not None and not self._holds
        self._timeout.reschedule(
            now + self._left if is_running and self._left is not None else None
        )
