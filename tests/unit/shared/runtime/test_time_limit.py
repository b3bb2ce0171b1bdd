"""Time limits: they expire, they are stopped while they are held, and they go on with what was
left.
"""

import asyncio

import pytest

from shared.runtime.time_limit import TimeLimit
from tests.support.virtual_time import in_virtual_time

LIMIT = 60.0  # seconds, of virtual time


@in_virtual_time
async def test_it_ends_what_takes_too_long() -> None:
    with pytest.raises(TimeoutError):
        async with TimeLimit(LIMIT):
            await asyncio.Event().wait()


@in_virtual_time
async def test_while_it_is_held_no_time_passes() -> None:
    async with TimeLimit(LIMIT) as limit:
        with limit.held():
            await asyncio.sleep(3 * LIMIT)


@in_virtual_time
async def test_it_goes_on_with_what_was_left() -> None:
    async def work() -> None:
        async with TimeLimit(LIMIT) as limit:
            with limit.held():
                await asyncio.sleep(3 * LIMIT)
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await work()


@in_virtual_time
async def test_it_goes_on_only_when_nobody_holds_it_any_more() -> None:
    async with TimeLimit(LIMIT) as limit:
        limit.hold()
        with limit.held():
            pass
        await asyncio.sleep(3 * LIMIT)


@in_virtual_time
async def test_it_may_be_held_before_it_begins_and_after_it_has_ended() -> None:
    limit = TimeLimit(LIMIT)
    limit.hold()
    async with limit:
        await asyncio.sleep(3 * LIMIT)
    limit.go_on()
    await asyncio.sleep(2 * LIMIT)


@in_virtual_time
async def test_none_is_no_limit() -> None:
    async with TimeLimit(None) as limit, asyncio.timeout(2 * LIMIT):
        with limit.held():
            await asyncio.sleep(0)


@in_virtual_time
async def test_a_cancellation_stays_one() -> None:
    async def endless() -> None:
        async with TimeLimit(LIMIT):
            await asyncio.Event().wait()

    task = asyncio.create_task(endless())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
