"""Entries that were left while Redis' clock was ahead are taken over soon after it was set right."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from local.stack import Stack
from shared.pipeline.entries import Consumer, Entry
from shared.pipeline.lanes import Lane
from shared.pipeline.stages import StageName
from shared.runtime.streams.deployment import Deployment
from shared.runtime.streams.groups import create_groups
from shared.runtime.streams.intake import Intake
from shared.runtime.streams.leases import Leases
from shared.service.clients import redis_command
from tests.support.local_stack import bare_environ, enterable_directory
from tests.support.waiting import wait_until
from tests.torture.clock import Clock, find_library, redis_with_clock

STAGE = StageName.CHUNKER
STREAM = STAGE.stream(Lane.NORMAL)
LEASE = 0.3


@pytest_asyncio.fixture
async def clocked() -> AsyncIterator[tuple[Redis, Clock]]:
    library = find_library()
    if library is None:
        pytest.skip("there is no libfaketime for this machine")
    with enterable_directory() as directory:
        async with (
            Stack(directory / "stack", bare_environ(), parts=(), restart_delay=None) as stack,
            redis_with_clock(stack, library) as clock,
            redis_command(stack.environment["WEBHOOK_REDIS_URL"]) as redis,
        ):
            yield redis, clock


async def set_clock(redis: Redis, clock: Clock, seconds: int) -> None:
    """Return when Redis goes by it."""

    async def is_set() -> bool:
        server: tuple[int, int] = await redis.time()
        return abs(server[0] - time.time() - seconds) < 2

    clock.set(seconds)
    await wait_until(is_set, description=f"a clock {seconds} s ahead")


async def take(intake: Intake) -> list[Entry]:
    """What is read first; a look at nothing takes up to a second."""
    async with asyncio.timeout(20):
        while not (entries := await intake.take(dict.fromkeys(Lane, 1))):
            pass
    return entries


async def test_what_was_left_while_the_clock_was_ahead_is_taken_over(
    clocked: tuple[Redis, Clock],
) -> None:
    redis, clock = clocked
    consumer = Consumer(stage=STAGE, name="live", lease=LEASE)
    await create_groups(redis, STAGE)
    await set_clock(redis, clock, 600)
    await redis.xadd(STREAM, {"h": "{}", "b": ""})
    await redis.xreadgroup(STAGE, "dead", {STREAM: ">"})
    await set_clock(redis, clock, 0)
    deployment, leases = Deployment(redis, "only"), Leases(redis, consumer, LEASE)
    entries = await take(Intake(redis, deployment, consumer, leases, gate=None))
    assert [(entry.stream, entry.deliveries) for entry in entries] == [(STREAM, 2)]
