"""Deletes crashed consumers.

Each process has a new consumer name, so that old names would pile up in the groups.
"""

import asyncio
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.pipeline.entries import Consumer
from shared.runtime.streams.lua import script

log = structlog.get_logger()

_DEAD_AFTER_LEASES = 4  # a live consumer reads at least once a second


class Janitor:
    """Deletes dead consumers from the groups of one stage. Several janitors may run at once."""

    def __init__(self, redis: Redis, consumer: Consumer) -> None:
        self._redis = redis
        self._consumer = consumer
        self._leave = redis.register_script(script("leave"))

    async def run(self) -> None:
        """Tidy up once a lease, until cancelled."""
        while True:
            await asyncio.sleep(self._consumer.lease)
            try:
                await self.tidy()
            except (RedisError, OSError) as error:
                log.warning("Consumers not tidied", stage=self._consumer.stage, error=str(error))

    async def tidy(self) -> int:
        """Delete dead consumers that hold nothing, and return how many.

        Entries of a consumer are reclaimed first. The script checks again that nothing is pending:
        deleting such a consumer would lose its entries.
        """
        deleted = 0
        for stream in self._consumer.stage.streams:
            consumers: Any = await self._redis.xinfo_consumers(stream, self._consumer.stage)
            for consumer in consumers:
                if self._is_dead(consumer):
                    deleted += await self._leave(
                        keys=[stream], args=[self._consumer.stage, consumer["name"]]
                    )
        if deleted:
            log.info("Dead consumers deleted", stage=self._consumer.stage, consumers=deleted)
        return deleted

    def _is_dead(self, consumer: dict[str, Any]) -> bool:
        is_own = consumer["name"] == self._consumer.name.encode()
        idle_s = consumer["idle"] / 1000
        return (
            not is_own
            and consumer["pending"] == 0
            and idle_s > _DEAD_AFTER_LEASES * self._consumer.lease
        )
