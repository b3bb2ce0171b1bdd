"""How much may be in flight at once, and at which server: a semaphore over several servers."""

import asyncio
from collections.abc import Callable, Sequence

from shared.pipeline.fair_queue import FairQueue
from shared.pipeline.lanes import Lane
from shared.service.errors import DependencyError

_UNLIMITED = 1 << 30


class Permits:
    """What is in flight at one server, and how much may be.

    The limits and `is_open` may change at any time: they hold for what is admitted from then on.
    """

    def __init__(self, limit: int, requests: int, request_inputs: int = _UNLIMITED) -> None:
        """At most `limit` inputs at once, in at most so many requests of at most `request_inputs`
        inputs.
        """
        self._limit = limit
        self.requests_limit = requests
        self.request_inputs = request_inputs
        self.in_use = 0  # inputs
        self.requests_in_use = 0
        self.pause_s = 0.0  # after each request
        # Called when there may be more room, or none for ever.
        self.changed: Callable[[], None] = lambda: None
        self._is_open = True
        self._is_pausing = False

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

    def room(self, weight: int) -> int:
        """How many of `weight` inputs may be sent now in one request; 0 if it has to wait.

        One request may be in flight whatever the limit: a limit that was lowered must not block for
        ever.
        """
        weight = min(weight, self.request_inputs)
        fits = not self.in_use or self.in_use + weight <= self.limit
        is_free = self.is_open and not self._is_pausing
        return weight if is_free and fits and self.requests_in_use < self.requests_limit else 0

    def load_with(self, weight: int) -> float:
        """The share of the limit that is in use with so much more."""
        return (self.in_use + weight) / self.limit

    def pause(self) -> None:
        """Admit nothing for `pause_s` seconds."""
        if self.pause_s:
            self._is_pausing = True
            asyncio.get_running_loop().call_later(self.pause_s, self._go_on)

    def _go_on(self) -> None:
        self._is_pausing = False
        self.changed()


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
            self.permits.pause()
            self.permits.changed()


class Limiter:
    """Admits requests, each at the least loaded place that has room for it: in turns between the
    lanes, by inputs.

    First come, first served within a lane.
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
        """Wait until a request of up to `weight` inputs is admitted: as many as the place takes in
        one request.

        The caller must call `release`, unless the wait was cancelled. Raises DependencyError as
        soon as all places are closed.
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
            elif (served := self._settle(turn, weight, lane)) is None:
                return
            else:
                self._queue.serve(lane, served)

    def _settle(self, turn: asyncio.Future[Admission], weight: int, lane: Lane) -> int | None:
        """Admit or fail a caller and return the inputs that it got; None if it has to wait."""
        if not any(place.is_open for place in self._places):
            turn.set_exception(DependencyError("tei", "no server is available"))
            return weight
        rooms = {place: room for place in self._places if (room := place.room(weight))}
        if not rooms:
            return None
        place = min(rooms, key=lambda place: place.load_with(rooms[place]))
        turn.set_result(Admission(place, rooms[place], lane))
        return rooms[place]
