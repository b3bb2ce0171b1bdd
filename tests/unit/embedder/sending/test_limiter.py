"""The weighted limiter: never over its limit, first come first served in a lane, nothing lost to
cancellation.
"""

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from embedder.sending.limiter import Admission, Limiter, Permits
from shared.pipeline.lanes import Lane
from shared.service.errors import DependencyError


def one_place(limit: int) -> tuple[Permits, Limiter]:
    permits = Permits(limit, requests=1000)
    return permits, Limiter([permits])


async def start(limiter: Limiter, weights: Iterable[int]) -> list[asyncio.Task[Admission]]:
    tasks = [asyncio.create_task(limiter.acquire(weight)) for weight in weights]
    await settle()
    return tasks


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def cancel(*tasks: asyncio.Task[Admission]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_weights_are_admitted_up_to_the_limit() -> None:
    permits, limiter = one_place(10)
    tasks = await start(limiter, [4, 6, 1])
    assert [task.done() for task in tasks] == [True, True, False]
    assert (permits.in_use, limiter.waiting) == (10, 1)
    tasks[0].result().release()
    await tasks[2]
    assert permits.in_use == 7


async def test_small_weights_do_not_overtake_a_big_one() -> None:
    _, limiter = one_place(10)
    tasks = await start(limiter, [5, 10, 1])
    assert [task.done() for task in tasks] == [True, False, False]
    tasks[0].result().release()
    await settle()
    assert [task.done() for task in tasks] == [True, True, False]
    await cancel(tasks[2])


async def test_a_higher_lane_is_admitted_before_a_lower_one_that_waits_longer() -> None:
    _, limiter = one_place(10)
    [held] = await start(limiter, [10])
    low = asyncio.create_task(limiter.acquire(10, Lane.LOW))
    await settle()
    high = asyncio.create_task(limiter.acquire(1, Lane.HIGH))
    await settle()
    held.result().release()
    await settle()
    assert (high.done(), low.done()) == (True, False)
    high.result().release()
    await low


async def test_a_weight_above_the_limit_is_admitted_alone() -> None:
    permits, limiter = one_place(4)
    tasks = await start(limiter, [1, 9])
    assert not tasks[1].done()
    tasks[0].result().release()
    await tasks[1]
    assert permits.in_use == 9


async def test_a_raised_limit_admits_at_once_and_a_lowered_one_takes_nothing_away() -> None:
    permits, limiter = one_place(4)
    first, second = await start(limiter, [4, 4])
    permits.limit = 8
    await second
    permits.limit = 2
    assert permits.in_use == 8
    tasks = await start(limiter, [1])
    first.result().release()
    await settle()
    assert not tasks[0].done()
    second.result().release()
    await tasks[0]


async def test_a_request_gets_as_many_inputs_as_its_place_takes() -> None:
    small, large = (
        Permits(6, requests=9, request_inputs=3),
        Permits(100, requests=9, request_inputs=20),
    )
    tasks = await start(Limiter([small, large]), [30, 30, 30])
    granted = {(task.result().permits, task.result().weight) for task in tasks}
    assert granted == {(small, 3), (large, 20)}


async def test_a_place_that_pauses_after_a_request_admits_the_next_one_later() -> None:
    permits, limiter = one_place(1)
    permits.pause_s = 0.01
    first, second = await start(limiter, [1, 1])
    first.result().release()
    await settle()
    assert not second.done()
    await asyncio.wait_for(second, 1)


async def test_requests_are_bounded_whatever_they_weigh() -> None:
    permits = Permits(100, requests=2)
    tasks = await start(Limiter([permits]), [1, 1, 1])
    assert [task.done() for task in tasks] == [True, True, False]
    tasks[0].result().release()
    await tasks[2]


async def test_a_part_that_is_given_back_admits_the_next() -> None:
    permits, limiter = one_place(10)
    tasks = await start(limiter, [10, 6])
    tasks[0].result().shrink(4)
    await tasks[1]
    tasks[0].result().release()
    tasks[0].result().release()
    assert permits.in_use == 6


async def test_the_least_loaded_place_is_next() -> None:
    places = [Permits(100, requests=9), Permits(50, requests=9)]
    tasks = await start(Limiter(places), [10] * 6)
    assert [task.result().permits for task in tasks] == [places[n] for n in (0, 0, 1, 0, 0, 1)]


async def test_a_full_place_and_a_closed_one_get_nothing_and_the_others_go_on() -> None:
    full, closed, free = (
        Permits(10, requests=1),
        Permits(100, requests=9),
        Permits(1000, requests=9),
    )
    limiter = Limiter([full, closed, free])
    closed.is_open = False
    free.is_open = False
    [first] = await start(limiter, [10])
    free.is_open = True
    tasks = await start(limiter, [10, 10])
    assert first.result().permits is full
    assert [task.result().permits for task in tasks] == [free, free]


async def test_a_waiting_caller_fails_once_all_places_are_closed_and_enters_when_one_opens() -> (
    None
):
    permits, limiter = one_place(1)
    _, waiting = await start(limiter, [1, 1])
    permits.is_open = False
    with pytest.raises(DependencyError, match="no server is available"):
        await waiting
    with pytest.raises(DependencyError):
        await limiter.acquire(1)
    permits.is_open = True
    [task] = await start(limiter, [1])
    assert (limiter.waiting, task.done()) == (1, False)
    await cancel(task)


async def test_cancelling_the_head_of_the_queue_lets_the_next_in() -> None:
    permits, limiter = one_place(10)
    tasks = await start(limiter, [5, 10, 5])
    await cancel(tasks[1])
    await asyncio.wait_for(tasks[2], 1)
    assert (permits.in_use, limiter.waiting) == (10, 0)


@pytest.mark.parametrize("cancels_first", [True, False])
async def test_a_cancellation_that_meets_an_admission_loses_no_permit(cancels_first: bool) -> None:
    permits, limiter = one_place(1)
    held, waiting = await start(limiter, [1, 1])
    if cancels_first:
        waiting.cancel()
        held.result().release()
    else:
        held.result().release()
        waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (permits.in_use, limiter.waiting) == (0, 0)


class LimiterMachine(RuleBasedStateMachine):
    """Random acquisitions, releases, cancellations and limits, against the order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.permits, self.limiter = one_place(8)
        self.queue: list[tuple[asyncio.Task[Admission], int]] = []
        self.held: list[Admission] = []

    def teardown(self) -> None:
        self.loop.run_until_complete(cancel(*[task for task, _ in self.queue]))
        self.loop.close()

    def turn(self) -> None:
        self.loop.run_until_complete(settle())
        served = [task.result() for task, _ in self.queue if task.done()]
        waiting = [(task, weight) for task, weight in self.queue if not task.done()]
        assert self.queue[len(served) :] == waiting, "served out of order"
        self.held += served
        self.queue = waiting

    @property
    def weight_held(self) -> int:
        return sum(admission.weight for admission in self.held)

    @rule(weight=st.integers(1, 12))
    def acquire(self, weight: int) -> None:
        self.queue.append((self.loop.create_task(self.limiter.acquire(weight)), weight))
        self.turn()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.held.pop(data.draw(st.integers(0, len(self.held) - 1))).release()
        self.turn()

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def cancel_one(self, data: st.DataObject) -> None:
        task, _ = self.queue.pop(data.draw(st.integers(0, len(self.queue) - 1)))
        self.loop.run_until_complete(cancel(task))
        self.turn()

    @rule(limit=st.integers(1, 16))
    def change_limit(self, limit: int) -> None:
        self.permits.limit = limit
        self.turn()

    @invariant()
    def what_is_in_use_is_what_is_held(self) -> None:
        assert self.permits.in_use == self.weight_held
        assert self.limiter.waiting == len(self.queue)

    @invariant()
    def no_caller_waits_without_need(self) -> None:
        if self.queue:
            assert self.held
            assert self.weight_held + self.queue[0][1] > self.permits.limit


TestLimiterMachine = LimiterMachine.TestCase
TestLimiterMachine.settings = settings(deadline=None, max_examples=60)


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), max_size=30), st.integers(1, 10))
def test_the_sum_in_use_is_within_the_limit_unless_one_stands_alone(
    weights: list[int], limit: int
) -> None:
    async def run() -> None:
        permits, limiter = one_place(limit)
        held: list[int] = []

        async def work(weight: int) -> None:
            admission = await limiter.acquire(weight)
            held.append(weight)
            assert sum(held) <= limit or held == [weight]
            await asyncio.sleep(0)
            held.remove(weight)
            admission.release()

        await asyncio.gather(*map(work, weights))
        assert (permits.in_use, limiter.waiting) == (0, 0)

    asyncio.run(run())
