"""The last resort: items whose entries are lost although the marker says that they were published.

Causes are entries deleted by hand and headers that cannot be read. Such an item makes no progress,
but neither does an item that waits in a full lane, or while TEI is unavailable. The age of the
entries in the streams tells them apart: a waiting item has an entry about as old as its last
progress.
"""

from collections.abc import Mapping

import structlog
from redis.asyncio import Redis

from ingest.dispatch.release import Releases
from shared.pipeline.lanes import Lane
from shared.pipeline.stages import StageName
from shared.runtime.streams.lua import script

log = structlog.get_logger()

_PATIENCE = 3  # multiple of the time limit of a batch message in one stage
# Multiple of the same: an entry may be added later than the recorded progress, if Redis was
# unavailable.
_DELAY = 2


def stuck_after(oldest: float, stage_timeout: float) -> float:
    """Seconds without progress after which an item has no entry, given the age of the oldest entry
    of its lane.
    """
    return max(_PATIENCE * stage_timeout, oldest + _DELAY * stage_timeout)


class Rescue:
    """Queues lost items again.

    Raises RedisError, OSError, and DependencyError when Postgres is unavailable.
    """

    def __init__(self, releases: Releases, redis: Redis, stage_timeout: float) -> None:
        self._releases = releases
        self._oldest = redis.register_script(script("oldest"))
        self._stage_timeout = stage_timeout

    async def requeue_stuck(self) -> None:
        """Find items without progress, and queue those that are in no stream."""
        if not await self._releases.is_any_idle(_PATIENCE * self._stage_timeout):
            return
        ages = await self._ages()
        limits = {lane: stuck_after(age, self._stage_timeout) for lane, age in ages.items()}
        for row in await self._releases.requeue_idle(limits):
            log.error("Item without progress, queued again", **dict(row))

    async def _ages(self) -> Mapping[Lane, float]:
        """The age of the oldest entry of each lane in any stage, in seconds; 0 if there is none."""
        places = [(lane, stage.stream(lane)) for lane in Lane for stage in StageName]
        answer = await self._oldest(keys=[stream for _, stream in places])
        ages = dict.fromkeys(Lane, 0.0)
        for (lane, _), age_ms in zip(places, answer, strict=True):
            ages[lane] = max(ages[lane], age_ms / 1000)
        return ages
