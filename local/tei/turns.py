"""Which request runs next when there are more than threads: small ones first, none starved."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# A full server holds 512 inputs, 16 requests of 32: below 16 a query would wait for the oldest of
# them.
PATIENCE = 16


class Turns:
    """Slots given to the waiter with the earliest deadline; time is measured as amounts
    of work, not as seconds.

    A request may be overtaken by smaller ones until 16 times its own work has begun since it came.
    So a query waits for one group and not for 32 long texts, and equal requests are finished one
    after the other.
    """

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._begun = 0
        self._waiting: list[tuple[int, int, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return sum(not turn.done() for *_, turn in self._waiting)

    def deadline(self, work: int) -> int:
        """The deadline of a request that comes now, with `work` (tokens) in all its groups."""
        return self._begun + PATIENCE * work

    @asynccontextmanager
    async def take(self, deadline: int, work: int) -> AsyncIterator[None]:
        """Wait for a slot and hold it, to do `work` (tokens) of a request with this deadline."""
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (deadline, next(self._arrivals), work, turn))
        self._give()
        try:
            await turn
            yield
        finally:
            if not turn.cancelled():  # cancelled means: it still waited, no slot was given
                self._free += 1
                self._give()

    def _give(self) -> None:
        while self._free and self._waiting:
            *_, work, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._free -= 1
                self._begun += work
                turn.set_result(None)
