"""Fair queues: no lane waits for all documents of another, and none starves."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Generic, TypeVar

from shared.pipeline.lanes import FairLanes, Lane

T = TypeVar("T")


class FairQueue(Generic[T]):
    """First come, first served within a lane; the lanes take turns by their weights."""

    def __init__(self) -> None:
        self._fair = FairLanes()
        self._waiting: dict[Lane, deque[T]] = {lane: deque() for lane in Lane}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, lane: Lane, item: T) -> None:
        """Put an item at the end of its lane."""
        if not self._waiting[lane]:
            self._fair.found_empty(lane)
        self._waiting[lane].append(item)

    def first(self, lanes: Iterable[Lane] = Lane) -> tuple[Lane, T] | None:
        """Return the item whose turn it is among these lanes; None if nothing waits there."""
        order = self._fair.order([lane for lane in lanes if self._waiting[lane]])
        return (order[0], self._waiting[order[0]][0]) if order else None

    def serve(self, lane: Lane, weight: int) -> None:
        """Remove the first item of a lane.

        The heavier it is, the longer until the lane's next turn.
        """
        self._waiting[lane].popleft()
        self._fair.served(lane, weight)

    def discard(self, lane: Lane, item: T) -> None:
        """Remove an item that no longer waits, if it is in the queue."""
        with contextlib.suppress(ValueError):
            self._waiting[lane].remove(item)


class FairSlots:
    """A semaphore whose waiters are served by a fair queue."""

    def __init__(self, count: int, reserved: Mapping[Lane, int] | None = None) -> None:
        """Allow `count` holders at once, and `reserved` more of a lane."""
        self._free = count
        self._reserved = {**dict.fromkeys(Lane, 0), **(reserved or {})}
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue()

    @contextlib.asynccontextmanager
    async def hold(self, lane: Lane) -> AsyncIterator[None]:
        """Hold a slot within the block, after waiting for it."""
        await self.acquire(lane)
        try:
            yield
        finally:
            self.release()

    async def acquire(self, lane: Lane) -> None:
        """Wait for a slot. The caller must call `release`, unless the wait was cancelled."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.add(lane, turn)
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._queue.discard(lane, turn)
            else:  # cancelled after it was served
                self.release()
            raise

    def release(self) -> None:
        """Give a slot back."""
        self._free += 1
        self._serve()

    def _serve(self) -> None:
        while waiting := self._queue.first(self._open_lanes()):
            lane, turn = waiting
            if turn.cancelled():
                self._queue.discard(lane, turn)
            else:
                self._queue.serve(lane, 1)
                self._free -= 1
                turn.set_result(None)

    def _open_lanes(self) -> list[Lane]:
        return [lane for lane in Lane if self._free + self._reserved[lane] > 0]
