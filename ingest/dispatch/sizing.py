"""The number of documents in a batch message.

`BatchSizes` decides, without I/O; `Samples` measures.

Messages are small while few documents wait, so that these are processed in parallel, and larger
behind a long queue, where the fixed costs of a message count. The measured time of messages in
their slowest stage corrects the size: between `SHORT_S` and `LONG_S` a message is long enough to be
cheap, and short enough to repeat after a crash.
"""

import statistics
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from shared.pipeline.messages import DocumentRef, Header

AUTO = "auto"
SHORT_S, LONG_S = 1.0, 3.0  # doctor uses them, too
MEASURED = 8  # messages between corrections
MAX_DOCUMENTS = 32
MAX_SAMPLES = 64
COUNTED_DEPTH = 100  # queued items from which on a queue is long


class BatchSizes:
    """The configured size, or one that follows the depth of the queue and the time of messages."""

    def __init__(self, setting: str) -> None:
        """`setting` is a number, or `auto`."""
        self.is_automatic = setting == AUTO
        self._fixed = 0 if self.is_automatic else int(setting)
        self._factor = 1.0
        self._seconds: deque[float] = deque(maxlen=MEASURED)

    def size(self, depth: int) -> int:
        """Documents per message, when `depth` documents are queued."""
        if not self.is_automatic:
            return self._fixed
        if depth < COUNTED_DEPTH:
            return max(1, int((2 if depth < 10 else 4) * min(1.0, self._factor)))
        return max(1, min(MAX_DOCUMENTS, int(8 * self._factor)))

    @property
    def smallest(self) -> int:
        """The size of a message while few documents wait."""
        return self.size(0)

    def observe(self, seconds: float) -> None:
        """Add the time of a message in its slowest stage."""
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
        self._seconds.clear()  # the next messages have another size


class Samples:
    """One document of each released message, until it has ended and its times are known."""

    def __init__(
        self,
        sizes: BatchSizes,
        seconds_of: Callable[[Sequence[DocumentRef]], Awaitable[dict[int, float]]],
    ) -> None:
        """`seconds_of` returns the seconds of ended documents in their slowest stage, by index."""
        self._sizes = sizes
        self._seconds_of = seconds_of
        self._open: deque[DocumentRef] = deque(maxlen=MAX_SAMPLES)

    def add(self, headers: Sequence[Header]) -> None:
        """Add released messages; the oldest samples are dropped."""
        if self._sizes.is_automatic:
            self._open.extend(header.documents[0] for header in headers)

    async def measure(self) -> None:
        """Report the times of ended samples. Raises the errors of `seconds_of`."""
        if not self._open:
            return
        refs = list(self._open)
        ended = await self._seconds_of(refs)
        for index in sorted(ended):
            self._open.remove(refs[index])
            self._sizes.observe(ended[index])
