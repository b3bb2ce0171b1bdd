"""The last resort: items whose entries are lost although the marker says that they were published.

Somebody deleted entries by hand, or a header could not be read. Such an item makes no progress - but neither does one
that waits long, in a full lane or while TEI is away. What tells them apart is the age of what lies in the streams: an
item that waits has an entry there, about as old as its last progress.
"""

from collections.abc import Mapping

import structlog
from redis.asyncio import Redis

from ingest.dispatch.release import Releases
from shared.pipeline.lanes import Lane
from shared.pipeline.stages import StageName
from shared.runtime.streams.lua import script

log = structlog.get_logger()

_PATIENCE = 3  # times the time that a batch message may take in one stage
_DELAY = 2  # the same; how much later than the progress was noted its entry may have been added, Redis being away


def stuck_after(oldest: float, stage_timeout: float) -> float:
    """Seconds without progress after which an item cannot have an entry, if the oldest of its lane has that age."""
    return max(_PATIENCE * stage_timeout, oldest + _DELAY * stage_timeout)


class Rescue:
    """Queues again what is stuck. Raises RedisError, OSError, and DependencyError when Postgres is away."""

    def __init__(self, releases: Releases, redis: Redis, stage_timeout: float) -> None:
        self._releases = releases
        self._oldest = redis.register_script(script("oldest"))
        self._stage_timeout = stage_timeout

    async def requeue_stuck(self) -> None:
        """Look for items without progress, and queue those again that are in no stream."""
        if not await self._releases.is_any_idle(_PATIENCE * self._stage_timeout):
            return
        ages = await self._ages()
        limits = {lane: stuck_after(age, self._stage_timeout) for lane, age in ages.items()}
        for row in await self._releases.requeue_idle(limits):
            log.error("Item without progress, queued again", **dict(row))

    async def _ages(self) -> Mapping[Lane, float]:
        """Seconds that the oldest entry of each lane has been in its stream, at whatever stage; 0 if there is none."""
        places = [(lane, stage.stream(lane)) for lane in Lane for stage in StageName]
        answer = await self._oldest(keys=[stream for _, stream in places])
        ages = dict.fromkeys(Lane, 0.0)
        for (lane, _), age_ms in zip(places, answer, strict=True):
            ages[lane] = max(ages[lane], age_ms / 1000)
        return ages
