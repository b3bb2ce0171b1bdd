"""How many documents travel in one batch message. `BatchSizes` decides, and does no I/O; `Samples` measures.

Small ones while little waits, so that the few documents are worked on side by side; larger ones behind a long queue,
where a message's fixed costs count. How long messages really take in their slowest stage then corrects that: between
`SHORT_S` and `LONG_S` a message is long enough to be cheap and short enough to be done again after a crash.
"""

import statistics
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from shared.pipeline.messages import DocumentRef, Header

AUTO = "auto"
SHORT_S, LONG_S = 1.0, 3.0
MEASURED = 8  # messages between two corrections
MAX_DOCUMENTS = 32
MAX_SAMPLES = 64
COUNTED_DEPTH = 100  # from here on a queue is long


class BatchSizes:
    """The number that was set, or one that follows the queue's depth and the time that messages take."""

    def __init__(self, setting: str) -> None:
        """`setting` is a number, or `auto`."""
        self.is_automatic = setting == AUTO
        self._fixed = 0 if self.is_automatic else int(setting)
        self._factor = 1.0
        self._seconds: deque[float] = deque(maxlen=MEASURED)

    def size(self, depth: int) -> int:
        """Documents per message, where so many are queued."""
        if not self.is_automatic:
            return self._fixed
        if depth < COUNTED_DEPTH:
            return max(1, int((2 if depth < 10 else 4) * min(1.0, self._factor)))
        return max(1, min(MAX_DOCUMENTS, int(8 * self._factor)))

    @property
    def smallest(self) -> int:
        """What a message holds at least, unless fewer documents wait."""
        return self.size(0)

    def observe(self, seconds: float) -> None:
        """Take into account how long a message was in its slowest stage."""
        self._seconds.append(seconds)
        if len(self._seconds) < MEASURED:
            return
        typical = statistics.median(self._seconds)
        if typical > LONG_S:
            self._factor = max(self._factor / 2, 1 / 8)
        elif typical < SHORT_S:
            self._factor = min(self._factor * 2, MAX_DOCUMENTS / 8)
        else:
            return
        self._seconds.clear()  # of another size from here on


class Samples:
    """One document of each message that was released, until it has ended and tells how long its stages took."""

    def __init__(
        self, sizes: BatchSizes, seconds_of: Callable[[Sequence[DocumentRef]], Awaitable[dict[int, float]]]
    ) -> None:
        """`seconds_of` says how long those that have ended were in their slowest stage, by index."""
        self._sizes = sizes
        self._seconds_of = seconds_of
        self._open: deque[DocumentRef] = deque(maxlen=MAX_SAMPLES)

    def add(self, headers: Sequence[Header]) -> None:
        """Note messages that were released; the oldest samples give way."""
        if self._sizes.is_automatic:
            self._open.extend(header.documents[0] for header in headers)

    async def measure(self) -> None:
        """Hand on the times of those that have ended. Raises what `seconds_of` raises."""
        if not self._open:
            return
        refs = list(self._open)
        ended = await self._seconds_of(refs)
        for index in sorted(ended):
            self._open.remove(refs[index])
            self._sizes.observe(ended[index])
