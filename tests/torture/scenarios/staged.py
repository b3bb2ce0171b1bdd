"""A rare coincidence, provoked: random faults would hardly ever cause it."""

import asyncio
import time

from shared.pipeline.stages import StageName
from shared.service.clients import redis_command
from tests.torture.counters import Counts
from tests.torture.driver import Run, Scenario, Size

_HIGHEST = f"{2**64 - 1}-{2**64 - 1}"  # behind which a stream takes no entry
_REFUSAL = 1.0  # seconds


async def refuse_messages(run: Run) -> None:
    """Let the streams between the stages refuse messages: a hand-over must keep its entry."""
    streams = [
        stream for stage in (StageName.EMBEDDER, StageName.INDEXER) for stream in stage.streams
    ]
    async with redis_command(run.rig.environment["WEBHOOK_REDIS_URL"]) as redis:
        set_id = redis.register_script("return redis.call('XSETID', KEYS[1], ARGV[1])")
        for _ in range(run.size.faults):
            await asyncio.sleep(run.size.seconds / run.size.faults - _REFUSAL)
            for stream in streams:
                await set_id(keys=[stream], args=[_HIGHEST])
            await asyncio.sleep(_REFUSAL)
            for stream in streams:
                await set_id(keys=[stream], args=[f"{int(time.time() * 1000)}-0"])
            run.faults += 1


SCENARIOS = {
    26: Scenario(
        "streams that refuse messages", refuse_messages, Size(60, 4, 1), Size(1000, 60, 10),
        minimum=Counts(redeliveries=1),
    ),
}  # fmt: skip
