"""The deployment that the keys in Redis belong to.

Two deployments on the same keys would acknowledge and delete each other's entries: a stage ends an
entry whose items its own Postgres does not know.
"""

from redis.asyncio import Redis

from shared.pipeline.stages import OWNER
from shared.runtime.streams.lua import script
from shared.service.errors import ForeignRedisError


class Deployment:
    """One deployment, which is everything that works with the same Postgres, and its Redis."""

    def __init__(self, redis: Redis, deployment_id: str) -> None:
        """`deployment_id`: see `shared.jobs.migrate.deployment_of`."""
        self.redis = redis
        self.id = deployment_id
        self._claim = redis.register_script(script("claim"))

    async def claim(self) -> None:
        """Take the keys if no deployment has them, for example in an empty Redis.

        Raises ForeignRedisError if another deployment has them, RedisError and OSError.
        """
        owner = (await self._claim(keys=[OWNER], args=[self.id])).decode()
        if owner != self.id:
            raise ForeignRedisError(owner, self.id)
