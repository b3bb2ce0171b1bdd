"""Writers of the embedded vector store share their flushes."""

import asyncio

import pytest

from local.qdrant.flush import MAX_WAIT_SECONDS, GroupCommit
from tests.support.waiting import wait_until


class Disk:
    """Counts flushes, and fails when told to."""

    def __init__(self) -> None:
        self.flushes = 0
        self.failure: Exception | None = None

    def flush(self) -> None:
        self.flushes += 1
        if self.failure:
            raise self.failure


@pytest.fixture
def disk() -> Disk:
    return Disk()


async def write(commits: GroupCommit, received: asyncio.Event) -> None:
    with commits.writer():
        await received.wait()
        await commits.durable()


async def test_a_single_writer_is_flushed_without_waiting_for_anybody(disk: Disk) -> None:
    commits = GroupCommit(disk.flush)
    for expected in (1, 2):
        with commits.writer():
            async with asyncio.timeout(MAX_WAIT_SECONDS / 2):
                await commits.durable()
        assert disk.flushes == expected


async def test_writers_at_the_same_time_share_one_flush(disk: Disk) -> None:
    commits = GroupCommit(disk.flush)
    received = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(write(commits, received))
        await asyncio.sleep(0)
        received.set()
    assert disk.flushes == 1


async def test_a_writer_that_is_still_receiving_holds_up_the_others_only_shortly(
    disk: Disk,
) -> None:
    commits = GroupCommit(disk.flush)
    received = asyncio.Event()
    slow = asyncio.create_task(write(commits, received))
    await asyncio.sleep(0)
    async with asyncio.timeout(MAX_WAIT_SECONDS * 5):
        with commits.writer():
            await commits.durable()
    assert disk.flushes == 1
    received.set()
    await slow
    assert disk.flushes == 2


async def test_a_writer_that_gives_up_is_not_waited_for(disk: Disk) -> None:
    commits = GroupCommit(disk.flush)
    slow = asyncio.create_task(write(commits, asyncio.Event()))
    await asyncio.sleep(0)
    slow.cancel()
    async with asyncio.timeout(MAX_WAIT_SECONDS / 2):
        with commits.writer():
            await commits.durable()


async def test_a_flush_that_fails_fails_all_waiting_writers_and_no_later_one(disk: Disk) -> None:
    commits = GroupCommit(disk.flush)
    disk.failure = OSError("disk full")
    received = asyncio.Event()
    received.set()
    outcomes = await asyncio.gather(
        *(write(commits, received) for _ in range(3)), return_exceptions=True
    )
    assert [str(outcome) for outcome in outcomes] == ["disk full"] * 3
    disk.failure = None
    await write(commits, received)


async def test_a_write_that_nobody_waits_for_is_flushed_later(disk: Disk) -> None:
    commits = GroupCommit(disk.flush, lazy_seconds=0.01)
    commits.lazily()
    assert disk.flushes == 0
    await wait_until(lambda: disk.flushes, timeout=5, description="the lazy flush")


async def test_a_waiting_writer_does_not_wait_for_the_lazy_flush(disk: Disk) -> None:
    commits = GroupCommit(disk.flush, lazy_seconds=3600)
    commits.lazily()
    received = asyncio.Event()
    received.set()
    async with asyncio.timeout(1):
        await write(commits, received)
    assert disk.flushes == 1
