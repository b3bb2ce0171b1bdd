"""The consumer groups of the work streams."""

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from shared.errors import is_existing_group
from shared.streams import RELEASED, StageName


async def create_groups(redis: Redis, stage: StageName) -> None:
    """Create the stage's groups where they are missing, at 0: what lies in a stream was not handled yet.

    A group that had to be made may have had pending entries that are lost with it. Deleting the marker has the
    dispatcher release again what was in the streams.
    """
    for stream in stage.streams:
        try:
            await redis.xgroup_create(stream, stage, id="0", mkstream=True)
        except ResponseError as error:
            if not is_existing_group(error):
                raise
        else:
            await redis.delete(RELEASED)
