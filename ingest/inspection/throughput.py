"""The rate of each stage: batch messages that left its streams over the last minute.

Counted in Redis, where all stages can be counted alike; Postgres has no cheap count of the
embedder.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.pipeline.stages import StageName
from shared.runtime.streams.lua import script

WINDOW = 60.0  # seconds
_INTERVAL = 5.0


class RateWindow:
    """The rate of a counter over the last minute; its caller has the clock."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, count: int) -> None:
        """Add the value of the counter at `now` (seconds). A lower value starts a new window."""
        if self._samples and count < self._samples[-1][1]:
            self._samples.clear()
        self._samples.append((now, count))
        while self._samples[0][0] < now - WINDOW:
            self._samples.popleft()

    @property
    def per_second(self) -> float | None:
        """The rate; None before the second sample."""
        if not self._samples:
            return None
        (start, first), (end, last) = self._samples[0], self._samples[-1]
        return (last - first) / (end - start) if end > start else None


class Throughput:
    """Samples the entries that left the streams of every stage.

    Each ingest process samples for itself.
    """

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries_left = redis.register_script(script("entries_left"))
        self._clock = clock
        self._windows = {stage: RateWindow() for stage in StageName}

    async def run(self) -> None:
        """Sample every few seconds until cancelled."""
        while True:
            # A missing sample keeps the rate of the earlier ones; /health reports that Redis is
            # unavailable.
            with contextlib.suppress(RedisError, OSError):
                await self.sample()
            await asyncio.sleep(_INTERVAL)

    async def sample(self) -> None:
        """Take one sample. Raises RedisError and OSError."""
        streams = [stream for stage in StageName for stream in stage.streams]
        answer: Any = await self._entries_left(keys=streams)
        left: dict[str, int] = dict(zip(streams, answer, strict=True))
        now = self._clock()
        for stage, window in self._windows.items():
            window.add(now, sum(left[stream] for stream in stage.streams))

    def per_second(self, stage: StageName) -> float | None:
        """Batch messages per second that left the stage; None if not known yet."""
        return self._windows[stage].per_second
