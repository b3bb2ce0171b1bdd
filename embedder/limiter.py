"""How much may be in flight at once, and at which server: a weighted semaphore over several places."""

import asyncio
from collections.abc import Callable, Sequence

from shared.pipeline.fair_queue import FairQueue
from shared.pipeline.lanes import Lane
from shared.service.errors import DependencyError


class Permits:
    """What is in flight at one server, and how much may be.

    `limit` and `is_open` may change at any time: they hold for what is admitted from then on.
    """

    def __init__(self, limit: int, requests: int) -> None:
        """At most `limit` inputs at once, in at most so many requests."""
        self.requests_limit = requests
        self.in_use = 0  # inputs
        self.requests_in_use = 0
        self.changed: Callable[[], None] = lambda: None  # called when there may be more room, or none for ever
        self._limit = limit
        self._is_open = True

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self.changed()

    @property
    def is_open(self) -> bool:
        """Whether it is given anything new."""
        return self._is_open

    @is_open.setter
    def is_open(self, is_open: bool) -> None:
        self._is_open = is_open
        self.changed()

    def has_room(self, weight: int) -> bool:
        """Whether a request of so many inputs may go there now.

        One above the limit may if nothing else is in use: a limit that was lowered must not block for ever.
        """
        fits = not self.in_use or self.in_use + weight <= self.limit
        return self.is_open and fits and self.requests_in_use < self.requests_limit

    def load_with(self, weight: int) -> float:
        """The share of the limit that is in use with so much more."""
        return (self.in_use + weight) / self.limit


class Admission:
    """The right to have one request of `weight` inputs in flight at one place, until `release`."""

    def __init__(self, permits: Permits, weight: int, lane: Lane) -> None:
        self.permits = permits
        self.weight = weight
        self.lane = lane
        self._is_held = True
        permits.in_use += weight
        permits.requests_in_use += 1

    def shrink(self, weight: int) -> None:
        """Give back all but `weight` inputs."""
        self.permits.in_use -= self.weight - weight
        self.weight = weight
        self.permits.changed()

    def release(self) -> None:
        """Give everything back; a second time does nothing."""
        if self._is_held:
            self._is_held = False
            self.permits.in_use -= self.weight
            self.permits.requests_in_use -= 1
            self.permits.changed()


class Limiter:
    """Admits requests, each at the least loaded place that has room for it: in turns between the lanes, by inputs.

    First come, first served within a lane, so that small requests do not starve a big one.
    """

    def __init__(self, places: Sequence[Permits]) -> None:
        self._places = places
        self._queue: FairQueue[tuple[asyncio.Future[Admission], int]] = FairQueue()
        for place in places:
            place.changed = self._admit

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        return len(self._queue)

    async def acquire(self, weight: int, lane: Lane = Lane.NORMAL) -> Admission:
        """Wait until a request of `weight` inputs is admitted; the caller owes a `release`. If cancelled, nothing.

        Raises DependencyError as soon as all places are closed.
        """
        turn: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()
        self._queue.add(lane, (turn, weight))
        self._admit()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._queue.discard(lane, (turn, weight))
                self._admit()
            elif turn.exception() is None:  # admitted in the very moment of the cancellation
                turn.result().release()
            raise

    def _admit(self) -> None:
        while waiting := self._queue.first():
            lane, (turn, weight) = waiting
            if turn.cancelled():
                self._queue.discard(lane, (turn, weight))
            elif self._settle(turn, weight, lane):
                self._queue.serve(lane, weight)
            else:
                return

    def _settle(self, turn: asyncio.Future[Admission], weight: int, lane: Lane) -> bool:
        if not any(place.is_open for place in self._places):
            turn.set_exception(DependencyError("tei", "none of its servers is well"))
            return True
        free = [place for place in self._places if place.has_room(weight)]
        if not free:
            return False
        turn.set_result(Admission(min(free, key=lambda place: place.load_with(weight)), weight, lane))
        return True
