"""How much may be in flight at once: a weighted semaphore whose limit can change while it is in use."""

import asyncio
from collections import deque
from contextlib import suppress


class WeightedLimiter:
    """Admits weights in the order they came, as long as their sum stays within `limit`.

    First come, first served, so that small weights do not starve a big one. A weight above the limit is
    admitted when nothing else is in use: a limit that was lowered must not block for ever.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_use = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        """Takes effect for what is admitted from now on; what is in use is left alone."""
        self._limit = limit
        self._admit()

    @property
    def in_use(self) -> int:
        """The sum of the weights that were admitted and not yet released."""
        return self._in_use

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        return len(self._waiting)

    async def acquire(self, weight: int) -> None:
        """Wait until `weight` is admitted. The caller owes one `release(weight)`; if cancelled, nothing."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, weight))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):  # _admit may have dropped it already
                    self._waiting.remove((turn, weight))
                self._admit()
            else:  # admitted in the very moment of the cancellation
                self.release(weight)
            raise

    def release(self, weight: int) -> None:
        """Give back what `acquire` admitted."""
        self._in_use -= weight
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            turn, weight = self._waiting[0]
            if not turn.cancelled():
                if self._in_use and self._in_use + weight > self._limit:
                    return
                self._in_use += weight
                turn.set_result(None)
            self._waiting.popleft()
