"""The consumer groups of the work streams."""

from redis.asyncio import Redis

from shared.pipeline.stages import RELEASED, StageName
from shared.runtime.streams.lua import script


async def create_groups(redis: Redis, stage: StageName) -> None:
    """Create the stage's groups where they are missing, at 0: its entries were not handled yet.

    Creating a group deletes the marker in the same step, so that the dispatcher releases again what
    was pending.
    """
    join = redis.register_script(script("join"))
    for stream in stage.streams:
        await join(keys=[stream, RELEASED], args=[stage])
