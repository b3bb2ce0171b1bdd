"""The concurrency slots of one consumer: entries in flight, and waiting for their end."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from shared.pipeline.lanes import LANES, Lane


class Slots:
    """Runs at most `limit` entries at once, and more of a lane with reserved slots."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._quiet_since: float | None = None
        self._tasks: dict[asyncio.Task[None], int] = {}  # with their `reruns`
        self._changed = asyncio.Event()
        self._is_closed = False

    @property
    def free(self) -> Mapping[Lane, int]:
        """How many entries of each lane may be started."""
        free = self._limit - len(self._tasks)
        return {lane: max(0, free + row.reserved_slots) for lane, row in LANES.items()}

    @property
    def has_room_for_reruns(self) -> bool:
        """Whether entries that were in flight at a crash take less than half of the slots."""
        return sum(self._tasks.values()) < max(1, self._limit // 2)

    @property
    def quiet_since(self) -> float | None:
        """When the last piece of work ended, or the first one began (seconds of the clock).

        None while idle.
        """
        return self._quiet_since if self._tasks else None

    def start(
        self,
        group: asyncio.TaskGroup,
        work: Coroutine[Any, Any, None],
        name: str,
        reruns: int = 0,
    ) -> None:
        """Start the work on an entry in a slot of its own.

        `reruns` is how much it takes of the half for entries that were in flight at a crash.
        """
        task = group.create_task(work, name=name)
        if not self._tasks:
            self._quiet_since = self._clock()
        self._tasks[task] = reruns
        task.add_done_callback(self._ended)

    async def wait_free(self) -> bool:
        """Wait until a slot is free for any lane; False once the slots are closed."""
        while not any(self.free.values()) and not self._is_closed:
            await self._wait_for_change()
        return not self._is_closed

    async def unless_closed(self, waiting: Coroutine[Any, Any, None]) -> bool:
        """Wait for `waiting`; False if the slots are closed first."""
        task = asyncio.create_task(waiting)
        task.add_done_callback(lambda _: self._changed.set())
        while not task.done() and not self._is_closed:
            await self._wait_for_change()
        task.cancel()
        return not self._is_closed

    async def wait_alone(self) -> None:
        """Wait until the caller's work is the only one."""
        while len(self._tasks) > 1:
            await self._wait_for_change()

    async def wait_idle(self) -> None:
        """Wait until nothing is in flight."""
        while self._tasks:
            await self._wait_for_change()

    def close(self) -> None:
        """End all waits for a free slot, now and later."""
        self._is_closed = True
        self._changed.set()

    async def cancel(self, timeout: float) -> None:
        """Cancel all work and wait at most `timeout` seconds: a frozen server may hold a task
        longer.
        """
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._quiet_since = self._clock()
        self._changed.set()

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
