"""Waiting in turns: by lane, none starved, nothing lost to cancellation."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.pipeline.fair_queue import FairQueue, FairSlots
from shared.pipeline.lanes import Lane


class Rig:
    """Slots, and holders that end when they are told to."""

    def __init__(self, count: int, **reserved: int) -> None:
        self.slots = FairSlots(count, {Lane(name): slots for name, slots in reserved.items()})
        self.held: list[Lane] = []  # in the order in which they came to their slots
        self.ends: list[asyncio.Event] = []

    async def start(self, *lanes: Lane) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self._hold(lane)) for lane in lanes]
        await settle()
        return tasks

    async def end_one(self) -> None:
        self.ends.pop(0).set()
        await settle()

    async def _hold(self, lane: Lane) -> None:
        async with self.slots.hold(lane):
            self.held.append(lane)
            self.ends.append(end := asyncio.Event())
            await end.wait()


async def settle() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


async def test_the_higher_lane_is_served_next() -> None:
    rig = Rig(1)
    await rig.start(Lane.LOW, Lane.LOW, Lane.NORMAL, Lane.HIGH)
    for _ in range(4):
        await rig.end_one()
    assert rig.held == [Lane.LOW, Lane.HIGH, Lane.NORMAL, Lane.LOW]


async def test_busy_lanes_take_turns_by_their_weights() -> None:
    rig = Rig(1)
    await rig.start(*list(Lane) * 100)
    for _ in range(99):
        await rig.end_one()
    assert Counter(rig.held) == {Lane.HIGH: 60, Lane.NORMAL: 30, Lane.LOW: 10}


async def test_the_high_lane_has_slots_of_its_own() -> None:
    rig = Rig(2, high=1)
    await rig.start(Lane.LOW, Lane.LOW, Lane.LOW, Lane.HIGH, Lane.HIGH)
    assert rig.held == [Lane.LOW, Lane.LOW, Lane.HIGH]
    await rig.end_one()
    assert rig.held[3:] == [Lane.HIGH]
    await rig.end_one()
    assert rig.held[4:] == [], "two are in flight again"
    await rig.end_one()
    assert rig.held[4:] == [Lane.LOW]


@pytest.mark.parametrize("cancels_first", [True, False])
async def test_a_cancellation_that_meets_its_turn_loses_no_slot(cancels_first: bool) -> None:
    rig = Rig(1)
    _, waiting, last = await rig.start(Lane.HIGH, Lane.HIGH, Lane.LOW)
    if cancels_first:
        waiting.cancel()
        rig.ends.pop(0).set()
    else:
        rig.ends.pop(0).set()
        waiting.cancel()
    await settle()
    assert rig.held == [Lane.HIGH, Lane.LOW]
    rig.ends.pop(0).set()
    await last
    await rig.start(Lane.LOW)
    assert len(rig.held) == 3


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(Lane), st.integers(1, 30)), max_size=60))
def test_a_lane_is_served_in_order_and_everything_is_served(
    items: Sequence[tuple[Lane, int]],
) -> None:
    queue: FairQueue[int] = FairQueue()
    for number, (lane, _) in enumerate(items):
        queue.add(lane, number)
    served: dict[Lane, list[int]] = {lane: [] for lane in Lane}
    while first := queue.first():
        lane, number = first
        served[lane].append(number)
        queue.serve(lane, items[number][1])
    assert len(queue) == 0
    assert served == {lane: [n for n, (of, _) in enumerate(items) if of is lane] for lane in Lane}
