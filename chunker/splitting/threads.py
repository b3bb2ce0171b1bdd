"""The threads that clean and split texts.

A text that takes forever blocks one of them and no other text.

A thread cannot be stopped. When all are stuck, waiting callers fail with DependencyError and the
process must end.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import structlog

from shared.pipeline.fair_queue import FairSlots
from shared.pipeline.lanes import Lane
from shared.runtime.time_limit import TimeLimit
from shared.service.errors import DependencyError

log = structlog.get_logger()

T = TypeVar("T")


class Threads:
    """At most `count` threads.

    One that works longer than `patience` seconds on one text is stuck.
    """

    def __init__(self, count: int, patience: float, on_stuck: Callable[[], None]) -> None:
        """`on_stuck` is called once, when the last thread gets stuck."""
        self._count = count
        self._patience = patience
        self._on_stuck = on_stuck
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="split")
        self._slots = FairSlots(count)
        self._stuck: set[object] = set()  # the work that they are stuck in
        self._is_lost = False

    async def run(
        self, lane: Lane, limit: TimeLimit, function: Callable[..., T], *args: object
    ) -> T:
        """Run CPU-bound work off the event loop; waiting for a thread does not count against
        `limit`.

        Raises DependencyError when all threads are stuck: the document is not at fault.
        """
        with limit.held():
            await self._slots.acquire(lane)
        if self._is_lost:
            self._slots.release()  # the next one that waits
            raise DependencyError("splitter", "all its threads are stuck; the process ends")
        loop = asyncio.get_running_loop()
        work = self._executor.submit(function, *args)
        timer = loop.call_later(self._patience, self._overdue, work)

        def returned(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: no caller waits any more
                loop.call_soon_threadsafe(self._returned, work, timer)

        # The thread's end, which a cancelled caller does not wait for.
        work.add_done_callback(returned)
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        """Do not wait for threads that are stuck."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _returned(self, work: "Future[T]", timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        self._stuck.discard(work)
        self._slots.release()

    def _overdue(self, work: "Future[T]") -> None:
        self._stuck.add(work)
        if len(self._stuck) == self._count and not self._is_lost:
            self._is_lost = True
            log.error("All splitter threads are stuck", threads=self._count)
            self._on_stuck()
            self._slots.release()
