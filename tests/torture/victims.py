"""Chooses processes that hold entries, so that a kill always interrupts work."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.exceptions import RedisError

from shared.pipeline.entries import Consumer
from shared.pipeline.stages import StageName
from shared.runtime.streams.janitor import Janitor
from shared.service.clients import redis_command
from tests.support.local_stack import is_alive
from tests.torture.driver import Run

_NO_LEASE = 0.02  # seconds
_PATIENCE = 10.0  # seconds of looking for a process with work


async def seize(run: Run, services: Sequence[str]) -> int:
    """Freeze a random process of these services that holds entries, and return its pid.

    Any of them is frozen if none holds entries for long.

    It is frozen before the check, so that it still holds what the check finds.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        pid = run.random.choice(run.rig.pids(*services))
        # A process that was just killed is listed until it is replaced.
        is_frozen = run.rig.freeze([pid]) and is_alive(pid)
        if is_frozen and (time.monotonic() > deadline or pid in await holders(run)):
            return pid
        run.rig.thaw([pid])
        await asyncio.sleep(0.02)


async def holders(run: Run) -> set[int]:
    """The processes that have pending entries; none while Redis is unavailable."""
    found: set[int] = set()
    with contextlib.suppress(RedisError, OSError):
        async with redis_command(run.rig.environment["WEBHOOK_REDIS_URL"]) as redis:
            for stage in StageName:
                for stream in stage.streams:
                    consumers: Any = await redis.xinfo_consumers(stream, stage)
                    found |= {
                        pid_of(consumer["name"]) for consumer in consumers if consumer["pending"]
                    }
    return found


@contextlib.asynccontextmanager
async def janitors(run: Run) -> AsyncIterator[None]:
    """A janitor for each stage that tidies all the time, and takes a consumer for dead at once."""
    async with redis_command(run.rig.environment["WEBHOOK_REDIS_URL"]) as redis:
        consumers = [Consumer(stage=stage, name="torture", lease=_NO_LEASE) for stage in StageName]
        tasks = [asyncio.create_task(Janitor(redis, consumer).run()) for consumer in consumers]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def pid_of(consumer: bytes) -> int:
    """The process of a consumer named service:host:pid:bootid."""
    return int(consumer.split(b":")[-2])
