"""Where the time of one search goes: for the Server-Timing header of its answer, and for the
metrics.
"""

import contextlib
import enum
import time
from collections.abc import Callable, Iterator


class Part(enum.StrEnum):
    """What a search waits for. `keyword` runs beside `embedding` and `dense`, the others one after
    the other.
    """

    EMBEDDING = "embedding"  # of the query, by TEI or from the cache
    DENSE = "dense"  # the nearest vectors, from Qdrant
    KEYWORD = "keyword"
    REGISTRY = "registry"  # which target, and which versions are live, from Postgres
    TEXTS = "texts"  # the payloads of one page, from Qdrant


class SearchTiming:
    """The seconds of one search, by part; several rounds of a part add up."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._started = clock()
        self.seconds: dict[Part, float] = {}

    @property
    def elapsed_s(self) -> float:
        """Since the search began."""
        return self._clock() - self._started

    @contextlib.contextmanager
    def of(self, part: Part) -> Iterator[None]:
        """Count what is done inside as this part's, whether it succeeds or not."""
        started = self._clock()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + self._clock() - started

    def header(self) -> str:
        """The value of a Server-Timing header, in milliseconds (w3.org/TR/server-timing)."""
        timed = [*self.seconds.items(), ("total", self.elapsed_s)]
        return ", ".join(f"{name};dur={seconds * 1000:.3f}" for name, seconds in timed)
