"""How often an address may try to sign in with a wrong secret."""

import collections
import time
from collections.abc import Callable

_TRIES = 10
_SECONDS = 60.0


class WrongSignIns:
    """The wrong secrets of the last minute, by address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[str | None, collections.deque[float]] = {}

    def are_too_many(self, address: str | None) -> bool:
        """Whether the address must wait until it may try again."""
        return len(self._recent(address)) >= _TRIES

    def note(self, address: str | None) -> None:
        """Record a wrong secret."""
        for other in list(self._times):
            self._recent(other)  # forgets addresses that have waited
        self._times.setdefault(address, collections.deque()).append(self._clock())

    def _recent(self, address: str | None) -> collections.deque[float]:
        times = self._times.get(address, collections.deque())
        while times and times[0] <= self._clock() - _SECONDS:
            times.popleft()
        if not times:
            self._times.pop(address, None)
        return times
