"""Repeats requests while ingest is unavailable, so that a command survives a restart of ingest."""

import time
from collections.abc import Callable
from typing import TypeVar

from cli.failures import ApiError

T = TypeVar("T")

LIMIT_S = 120.0

_FIRST_PAUSE_S = 0.25  # doubled up to the longest
_LONGEST_PAUSE_S = 5.0


class Patience:
    """Repeats a request until it is answered, for two minutes at most.

    A connection that is refused before ingest ever answered is not repeated: either ingest is not
    running, or the URL is wrong.
    """

    def __init__(
        self,
        tell: Callable[[str], None],
        *,
        limit_s: float = LIMIT_S,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tell` gets a line when ingest becomes unavailable, and one when it answers again."""
        self._tell = tell
        self._limit_s = limit_s
        self._sleep = sleep
        self._clock = clock
        self._has_answered = False

    def repeat(self, send: Callable[[], T]) -> T:
        """Call `send` until it returns. Raises its ApiError if repeating does not help."""
        try:
            answer = send()
        except ApiError as error:
            if not error.is_temporary or not (self._has_answered or error.was_connected):
                raise
            answer = self._retry(send, error)
        self._has_answered = True
        return answer

    def _retry(self, send: Callable[[], T], error: ApiError) -> T:
        started = self._clock()
        self._tell(f"{error}\nRetrying for up to {self._limit_s:g} s.")
        pause = _FIRST_PAUSE_S
        while self._clock() - started + pause <= self._limit_s:
            self._sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            try:
                answer = send()
            except ApiError as again:
                if not again.is_temporary:
                    raise
                error = again
            else:
                self._tell(f"Ingest answers again after {self._clock() - started:.0f} s.")
                return answer
        raise error
