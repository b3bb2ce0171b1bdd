"""Slots: how many entries of which lane may be started."""

import asyncio

from shared.pipeline.lanes import LANES, Lane
from shared.runtime.slots import Slots
from tests.unit.shared.runtime.fakes import settle


async def test_a_lane_with_reserved_slots_is_read_while_all_others_are_taken() -> None:
    slots, end = Slots(2), asyncio.Event()
    reserved = LANES[Lane.HIGH].reserved_slots
    assert slots.free == {Lane.HIGH: 2 + reserved, Lane.NORMAL: 2, Lane.LOW: 2}

    async def work() -> None:
        await end.wait()

    async with asyncio.TaskGroup() as group:
        for number in range(2):
            slots.start(group, work(), name=str(number))
        assert slots.free == {Lane.HIGH: reserved, Lane.NORMAL: 0, Lane.LOW: 0}
        assert await slots.wait_free()
        for number in range(reserved):
            slots.start(group, work(), name=f"high {number}")
        waiting = asyncio.create_task(slots.wait_free())
        await settle()
        assert not waiting.done()
        end.set()
        assert await waiting


async def test_closed_slots_end_every_wait() -> None:
    slots = Slots(-LANES[Lane.HIGH].reserved_slots)
    never = asyncio.Event()

    async def forever() -> None:
        await never.wait()

    free = asyncio.create_task(Slots.wait_free(slots))
    other = asyncio.create_task(slots.unless_closed(forever()))
    await settle()
    slots.close()
    assert await asyncio.wait_for(other, 5) is False
    assert await asyncio.wait_for(free, 5) is False
