"""The weighted limiter: never over its limit, first come first served, nothing lost to cancellation."""

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from embedder.limiter import WeightedLimiter


async def start(limiter: WeightedLimiter, weights: Iterable[int]) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(limiter.acquire(weight)) for weight in weights]
    await settle()
    return tasks


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_weights_are_admitted_up_to_the_limit() -> None:
    limiter = WeightedLimiter(10)
    tasks = await start(limiter, [4, 6, 1])
    assert [task.done() for task in tasks] == [True, True, False]
    assert (limiter.in_use, limiter.waiting) == (10, 1)
    limiter.release(4)
    await tasks[2]
    assert limiter.in_use == 7


async def test_small_weights_do_not_overtake_a_big_one() -> None:
    limiter = WeightedLimiter(10)
    tasks = await start(limiter, [5, 10, 1])
    assert [task.done() for task in tasks] == [True, False, False]
    limiter.release(5)
    await settle()
    assert [task.done() for task in tasks] == [True, True, False]
    await cancel(tasks[2])


async def test_a_weight_above_the_limit_is_admitted_alone() -> None:
    limiter = WeightedLimiter(4)
    tasks = await start(limiter, [1, 9])
    assert not tasks[1].done()
    limiter.release(1)
    await tasks[1]
    assert limiter.in_use == 9


async def test_a_raised_limit_admits_at_once_and_a_lowered_one_takes_nothing_away() -> None:
    limiter = WeightedLimiter(4)
    tasks = await start(limiter, [4, 4])
    limiter.limit = 8
    await tasks[1]
    limiter.limit = 2
    assert limiter.in_use == 8
    tasks = await start(limiter, [1])
    limiter.release(4)
    await settle()
    assert not tasks[0].done()
    limiter.release(4)
    await tasks[0]


async def test_cancelling_the_head_of_the_queue_lets_the_next_in() -> None:
    limiter = WeightedLimiter(10)
    tasks = await start(limiter, [5, 10, 5])
    await cancel(tasks[1])
    await asyncio.wait_for(tasks[2], 1)
    assert (limiter.in_use, limiter.waiting) == (10, 0)


@pytest.mark.parametrize("cancels_first", [True, False])
async def test_a_cancellation_that_meets_an_admission_loses_no_permit(cancels_first: bool) -> None:
    limiter = WeightedLimiter(1)
    _, waiting = await start(limiter, [1, 1])
    if cancels_first:
        waiting.cancel()
        limiter.release(1)
    else:
        limiter.release(1)
        waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (limiter.in_use, limiter.waiting) == (0, 0)


class LimiterMachine(RuleBasedStateMachine):
    """Random acquisitions, releases, cancellations and limits, against the order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.limiter = WeightedLimiter(8)
        self.queue: list[tuple[asyncio.Task[None], int]] = []
        self.held: list[int] = []

    def teardown(self) -> None:
        self.loop.run_until_complete(cancel(*[task for task, _ in self.queue]))
        self.loop.close()

    def turn(self) -> None:
        self.loop.run_until_complete(settle())
        served = [done for task, weight in self.queue if (done := task.done() and weight)]
        waiting = [(task, weight) for task, weight in self.queue if not task.done()]
        assert self.queue[len(served) :] == waiting, "served out of order"
        self.held += served
        self.queue = waiting

    @rule(weight=st.integers(1, 12))
    def acquire(self, weight: int) -> None:
        self.queue.append((self.loop.create_task(self.limiter.acquire(weight)), weight))
        self.turn()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.limiter.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))
        self.turn()

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def cancel_one(self, data: st.DataObject) -> None:
        task, _ = self.queue.pop(data.draw(st.integers(0, len(self.queue) - 1)))
        self.loop.run_until_complete(cancel(task))
        self.turn()

    @rule(limit=st.integers(1, 16))
    def change_limit(self, limit: int) -> None:
        self.limiter.limit = limit
        self.turn()

    @invariant()
    def what_is_in_use_is_what_is_held(self) -> None:
        assert self.limiter.in_use == sum(self.held)
        assert self.limiter.waiting == len(self.queue)

    @invariant()
    def nobody_waits_without_need(self) -> None:
        if self.queue:
            assert self.held
            assert sum(self.held) + self.queue[0][1] > self.limiter.limit


TestLimiterMachine = LimiterMachine.TestCase
TestLimiterMachine.settings = settings(deadline=None, max_examples=60)


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), max_size=30), st.integers(1, 10))
def test_the_sum_in_use_is_within_the_limit_unless_one_stands_alone(weights: list[int], limit: int) -> None:
    async def run() -> None:
        limiter = WeightedLimiter(limit)
        held: list[int] = []

        async def work(weight: int) -> None:
            await limiter.acquire(weight)
            held.append(weight)
            assert sum(held) <= limit or held == [weight]
            await asyncio.sleep(0)
            held.remove(weight)
            limiter.release(weight)

        await asyncio.gather(*map(work, weights))
        assert (limiter.in_use, limiter.waiting) == (0, 0)

    asyncio.run(run())
