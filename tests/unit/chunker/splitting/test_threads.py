"""The splitter's threads: waiting costs no document its time, stuck ones are given up, and the
process when all are.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from chunker.splitting.threads import Threads
from shared.pipeline.lanes import Lane
from shared.runtime.time_limit import TimeLimit
from shared.service.errors import DependencyError
from tests.support.waiting import wait_until

SHORT = 0.02


class Rig:
    """Two threads, and work for them that ends when it is told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.release = threading.Event()
        self.threads = Threads(2, SHORT, self.on_stuck)

    def on_stuck(self) -> None:
        self.calls += 1

    async def block(self, limit: float | None = None) -> bool:
        async with TimeLimit(limit) as time:
            return await self.threads.run(Lane.NORMAL, time, self.release.wait)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    rig.release.set()
    rig.threads.close()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("split"):
            thread.join(5)
            assert not thread.is_alive()


async def test_it_runs_what_it_is_given(rig: Rig) -> None:
    assert await rig.threads.run(Lane.NORMAL, TimeLimit(None), max, 3, 4) == 4


async def test_a_text_over_its_time_is_given_up_and_its_thread_is_not_taken_for_free(
    rig: Rig,
) -> None:
    with pytest.raises(TimeoutError):
        await rig.block(SHORT)
    assert await rig.threads.run(Lane.NORMAL, TimeLimit(None), max, 1, 2) == 2, (
        "the other thread is free"
    )
    other = asyncio.create_task(rig.block())
    waiting = asyncio.create_task(rig.threads.run(Lane.NORMAL, TimeLimit(None), max, 1, 2))
    await asyncio.sleep(0)
    rig.release.set()
    assert await other
    assert await waiting == 2


async def test_waiting_for_a_thread_does_not_count(rig: Rig) -> None:
    rig.threads = Threads(2, 60.0, rig.on_stuck)
    busy = [asyncio.create_task(rig.block()) for _ in range(2)]
    await asyncio.sleep(0)

    async def wait() -> int:
        async with TimeLimit(SHORT) as limit:
            return await rig.threads.run(Lane.NORMAL, limit, max, 1, 2)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(3 * SHORT)
    rig.release.set()
    assert await waiting == 2
    await asyncio.gather(*busy)


async def test_when_all_are_stuck_the_process_is_given_up_and_waiting_documents_are_not_at_fault(
    rig: Rig,
) -> None:
    stuck = [asyncio.create_task(rig.block(SHORT)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(rig.block()) for _ in range(3)]
    await wait_until(lambda: rig.calls, description="the process to be given up")
    results = await asyncio.gather(*stuck, *waiting, return_exceptions=True)
    assert [type(result) for result in results] == [TimeoutError] * 2 + [DependencyError] * 3
    with pytest.raises(DependencyError):
        await rig.block()
    assert rig.calls == 1


async def test_a_thread_that_comes_back_late_is_not_stuck_any_more(rig: Rig) -> None:
    with pytest.raises(TimeoutError):
        await rig.block(SHORT)
    await wait_until(lambda: len(rig.threads._stuck) == 1, description="one stuck thread")
    rig.release.set()
    await wait_until(lambda: not rig.threads._stuck, description="no stuck thread")
    rig.release.clear()
    late = asyncio.create_task(rig.block())
    await wait_until(lambda: len(rig.threads._stuck) == 1, description="another stuck thread")
    assert rig.calls == 0
    rig.release.set()
    await late
