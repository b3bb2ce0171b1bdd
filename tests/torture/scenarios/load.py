"""More than the pipeline can carry at once."""

import asyncio
import time

import httpx
from redis.asyncio import Redis

from shared.pipeline.stages import StageName
from shared.runtime.streams.gate import mark_of
from shared.service.clients import redis_command
from tests.torture.driver import Result, Run, Scenario, Size

_STREAM_BYTES = 64 * 1024
_CONCURRENCY = 2
_WRITERS = 4  # two chunkers, two embedders
_LARGEST_MESSAGE = 48 * 1024  # four pages of four chunks with their vectors
_LOOK = 0.1  # seconds
_PATIENCE = 30.0  # seconds more, on a slow machine, until the streams must have come to their mark


def _cap() -> int:
    """Bytes that the streams may hold: docs/operations.md. The traffic is all of one lane."""
    marks = [
        mark_of(stage, entries=64, size=_STREAM_BYTES)
        for stage in (StageName.EMBEDDER, StageName.INDEXER)
    ]
    own = sum(mark.bytes for mark in marks)
    return own + _WRITERS * (_CONCURRENCY + 4) * _LARGEST_MESSAGE


async def freeze_indexers(run: Run) -> None:
    """Freeze every indexer while documents come in, and see how much piles up in Redis."""
    frozen = run.rig.freeze(run.rig.pids("indexer"))
    peak, shut = 0, False
    planned = time.monotonic() + run.size.seconds + 4.0
    try:
        async with redis_command(run.rig.environment["WEBHOOK_REDIS_URL"]) as redis:
            while time.monotonic() < planned + (0 if shut else _PATIENCE):
                sizes = [await _size(redis, stage) for stage in StageName]
                peak = max(peak, sum(sizes))
                shut = (
                    shut
                    or sizes[-1] >= mark_of(StageName.INDEXER, entries=64, size=_STREAM_BYTES).bytes
                )
                await asyncio.sleep(_LOOK)
    finally:
        run.rig.thaw(frozen)
    run.faults += 1
    if not shut:
        run.problems.append("the index streams never came to their mark")
    if peak > _cap():
        run.problems.append(f"the streams took {peak:,} bytes of Redis, {_cap():,} are allowed")


async def was_always_accepted(run: Run, _: Result) -> list[str]:
    """Whether ingest accepted everything at once."""
    refused = [status for status in run.statuses if status != httpx.codes.ACCEPTED]
    return [f"ingest refused {len(refused)} requests"] if refused or run.broken else []


async def _size(redis: Redis, stage: StageName) -> int:
    return sum([int(await redis.memory_usage(stream, samples=0) or 0) for stream in stage.streams])


SCENARIOS = {
    20: Scenario(
        "the indexers frozen at full ingest", freeze_indexers,
        Size(300, 6, 1), Size(5000, 60, 1), clean_within=300,
        environment={
            "WEBHOOK_STREAM_BYTES": str(_STREAM_BYTES),
            "WEBHOOK_STAGE_CONCURRENCY": str(_CONCURRENCY),
        },
        verify=was_always_accepted,
    ),
}  # fmt: skip
