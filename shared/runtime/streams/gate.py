"""The downstream gate: a stage reads no entries of a lane that is full in the next stage's stream.

A lane is shut at its mark, in entries or bytes, and opens again below the low water, so that it
does not flap.
"""

import msgspec
from redis.asyncio import Redis

from shared.pipeline.lanes import LANES, LOW_WATER, Lane
from shared.pipeline.stages import StageName


class Mark(msgspec.Struct, frozen=True):
    """How much may lie in a stream."""

    entries: int
    bytes: int

    def of(self, lane: Lane) -> "Mark":
        """The mark of one lane."""
        share = LANES[lane].mark_share
        return Mark(max(1, int(self.entries * share)), max(1, int(self.bytes * share)))


class Fill(msgspec.Struct, frozen=True):
    """How much lies in a stream."""

    entries: int
    bytes: int


def mark_of(stage: StageName, *, entries: int, size: int) -> Mark:
    """Return the mark of a stage's streams, of WEBHOOK_STREAM_ENTRIES and WEBHOOK_STREAM_BYTES."""
    return Mark(entries, size * stage.row.mark_factor)


class Gate:
    """The room in the streams of `stage`, for the stage before it.

    Raises RedisError and OSError.
    """

    def __init__(self, redis: Redis, stage: StageName, mark: Mark) -> None:
        self._redis = redis
        self._stage = stage
        self._mark = mark
        self._is_shut = dict.fromkeys(Lane, False)

    async def room(self) -> dict[Lane, int]:
        """Return the number of entries that each lane's stream has room for; 0 if it is shut."""
        pipeline = self._redis.pipeline(transaction=False)
        for stream in self._stage.streams:
            pipeline.xlen(stream)
            pipeline.memory_usage(stream, samples=0)  # exact; the default of 5 samples was 50% off
        answers = await pipeline.execute()
        fills = [
            Fill(entries, size or 0)
            for entries, size in zip(answers[::2], answers[1::2], strict=True)
        ]
        room = {
            lane: room_of(self._mark.of(lane), fill, self._is_shut[lane])
            for lane, fill in zip(Lane, fills, strict=True)
        }
        self._is_shut = {lane: entries == 0 for lane, entries in room.items()}
        return room


def room_of(mark: Mark, fill: Fill, is_shut: bool) -> int:
    """Return the entries that a lane has room for: none above the low water if it was shut."""
    level = max(fill.entries / mark.entries, fill.bytes / mark.bytes)
    if level >= (LOW_WATER if is_shut else 1):
        return 0
    return mark.entries - fill.entries
