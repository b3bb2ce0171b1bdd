"""The downstream gate: a stage takes no new entries of a lane while that lane of the next stage's stream is full."""

from collections.abc import Mapping

import msgspec
from redis.asyncio import Redis

from shared.messages import Lane
from shared.streams import StageName

_HIGH_LANE_SHARE = 0.25  # kept apart, so that a burst of crawls leaves room for those who wait


class Mark(msgspec.Struct, frozen=True):
    """How much may lie in a stream."""

    entries: int
    bytes: int

    def of(self, lane: Lane) -> "Mark":
        """The mark of one lane."""
        if lane is not Lane.HIGH:
            return self
        return Mark(max(1, int(self.entries * _HIGH_LANE_SHARE)), max(1, int(self.bytes * _HIGH_LANE_SHARE)))


def marks(entries: int, size: int) -> Mapping[StageName, Mark]:
    """The marks of each stage's streams; vectors make the index streams' entries about twice as large."""
    return {
        StageName.CHUNKER: Mark(entries, size),
        StageName.EMBEDDER: Mark(entries, size),
        StageName.INDEXER: Mark(entries, size * 2),
    }


class Gate:
    """The room in the streams of `stage`, for those who fill them. Raises RedisError and OSError."""

    def __init__(self, redis: Redis, stage: StageName, mark: Mark) -> None:
        self._redis = redis
        self._stage = stage
        self._mark = mark

    async def room(self) -> dict[Lane, int]:
        """Entries that each lane's stream has room for; 0 if it is full by entries or bytes."""
        pipeline = self._redis.pipeline(transaction=False)
        for stream in self._stage.streams:
            pipeline.xlen(stream)
            pipeline.memory_usage(stream, samples=0)  # exact; the default of 5 samples was 50% off
        answers = await pipeline.execute()
        return {
            lane: _room(self._mark.of(lane), entries=answers[2 * i], size=answers[2 * i + 1] or 0)
            for i, lane in enumerate(Lane)
        }


def _room(mark: Mark, *, entries: int, size: int) -> int:
    return max(0, mark.entries - entries) if size < mark.bytes else 0
