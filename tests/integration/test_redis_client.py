"""The Redis client on a real server: what it refuses to work with, and cancellation."""

import asyncio
import random

import pytest

from shared.service.clients import check_redis
from shared.service.errors import ConfigurationError
from tests.support.stage_harness import Servers, make_dispatcher

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_redis_that_evicts_keys_is_refused_with_the_remedy(servers: Servers) -> None:
    await check_redis(servers.redis)
    await servers.redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(ConfigurationError, match="CONFIG SET maxmemory-policy noeviction"):
            await check_redis(servers.redis)
    finally:
        await servers.redis.config_set("maxmemory-policy", "noeviction")


async def test_a_cancelled_command_stays_cancelled(servers: Servers) -> None:
    async def endless() -> None:
        while True:
            await servers.redis.get("nothing")
            await make_dispatcher(servers).release_some()

    rng = random.Random(1)
    for _ in range(200):
        task = asyncio.create_task(endless())
        await asyncio.sleep(rng.random() * 0.003)
        task.cancel()
        await asyncio.wait({task}, timeout=5)
        assert task.cancelled()
