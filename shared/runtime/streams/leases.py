"""Leases: an entry that is renewed is not reclaimed.

When its lease is lost, its work is cancelled.
"""

import asyncio
import contextlib
from collections.abc import Iterator

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.pipeline.entries import Consumer, Entry
from shared.runtime.streams.lua import script

log = structlog.get_logger()


class Leases:
    """The entries that this consumer has in flight."""

    def __init__(self, redis: Redis, consumer: Consumer, renewal: float) -> None:
        self._renew = redis.register_script(script("renew"))
        self._recount = redis.register_script(script("recount"))
        self._consumer = consumer
        self._renewal = renewal
        self._tasks: dict[tuple[str, str], asyncio.Task[object]] = {}
        self._entries: dict[tuple[str, str], Entry] = {}
        self._lost: set[tuple[str, str]] = set()

    @property
    def held(self) -> list[Entry]:
        """The entries that are in flight."""
        return list(self._entries.values())

    def holds(self, stream: str, entry_id: str) -> bool:
        """Whether the entry is in flight here. An entry that is must not be started again."""
        return (stream, entry_id) in self._tasks

    @contextlib.contextmanager
    def hold(self, entry: Entry) -> Iterator[None]:
        """Keep the entry leased while the block runs.

        If the lease is lost, cancel and leave the block.

        A task may hold an entry that it already holds.
        """
        task = asyncio.current_task()
        assert task is not None
        key = (entry.stream, entry.id)
        self._tasks[key] = task
        self._entries[key] = entry
        try:
            yield
        except asyncio.CancelledError:
            if key not in self._lost or task.uncancel() > 0:
                raise
            log.warning("Lease lost", entry_id=entry.id, stream=entry.stream)
        finally:
            self._tasks.pop(key, None)
            self._entries.pop(key, None)
            self._lost.discard(key)

    async def keep(self) -> None:
        """Renew all leases at regular intervals until cancelled."""
        while True:
            await asyncio.sleep(self._renewal)
            try:
                await self.renew()
            except (RedisError, OSError) as error:
                log.warning("Leases not renewed", entries=len(self._tasks), error=str(error))

    async def renew(self) -> None:
        """Renew all leases now and cancel the work whose lease is lost.

        Raises RedisError and OSError.
        """
        held = list(self._tasks)
        if not held:
            return
        streams = sorted({stream for stream, _ in held})
        pairs = [
            part for stream, entry_id in held for part in (streams.index(stream) + 1, entry_id)
        ]
        answer = await self._renew(
            keys=streams, args=[self._consumer.stage, self._consumer.name, *pairs]
        )
        for index in answer:
            self._cancel(held[int(index)])

    async def release(self, entry: Entry) -> None:
        """Give the entry back with its delivery.

        It can be reclaimed at once; without Redis, after its lease.
        """
        try:
            await self._count(entry, -1, idle_ms=int(self._consumer.lease * 1000) + 1)
        except (RedisError, OSError) as error:
            log.warning(
                "Entry not given back", entry_id=entry.id, stream=entry.stream, error=str(error)
            )

    async def uncount(self, entry: Entry) -> None:
        """Take back the delivery of an entry that only waits: it cannot crash the worker now."""
        with contextlib.suppress(RedisError, OSError):  # then the wait counts, which is harmless
            await self._count(entry, -1)

    async def count(self, entry: Entry) -> bool:
        """Count the delivery before work begins.

        False if the lease or Redis is lost: do not work on the entry.
        """
        try:
            return await self._count(entry, 1)
        except (RedisError, OSError):
            return False

    async def _count(self, entry: Entry, change: int, idle_ms: int = 0) -> bool:
        consumer = self._consumer
        return bool(
            await self._recount(
                keys=[entry.stream], args=[consumer.stage, consumer.name, entry.id, change, idle_ms]
            )
        )

    def _cancel(self, key: tuple[str, str]) -> None:
        task = self._tasks.get(key)
        if task is not None and key not in self._lost:
            self._lost.add(key)
            task.cancel()
