import asyncio
import contextlib

from local.tei.turns import PATIENCE, Turns


class Requests:
    """Requests against one set of slots; `order` is the order in which they got theirs."""

    def __init__(self, slots: int) -> None:
        self.turns = Turns(slots)
        self.order: list[str] = []
        self.may_end: dict[str, asyncio.Event] = {}

    async def start(self, name: str, work: int) -> asyncio.Task[None]:
        self.may_end[name] = asyncio.Event()
        task = asyncio.create_task(self._hold(name, self.turns.deadline(work), work))
        await settle()
        return task

    async def _hold(self, name: str, deadline: int, work: int) -> None:
        async with self.turns.take(deadline, work):
            self.order.append(name)
            await self.may_end[name].wait()

    async def end(self, *names: str) -> None:
        for name in names:
            self.may_end[name].set()
            await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_as_many_run_at_once_as_there_are_slots() -> None:
    requests = Requests(2)
    for name in "abc":
        await requests.start(name, 10)
    assert requests.order == ["a", "b"]
    await requests.end("b")
    assert requests.order == ["a", "b", "c"]
    await requests.end("a", "c")


async def test_equal_requests_go_in_the_order_of_arrival() -> None:
    requests = Requests(1)
    for name in "abcd":
        await requests.start(name, 10)
    await requests.end(*"abcd")
    assert requests.order == list("abcd")


async def test_a_small_request_goes_before_large_ones_that_came_earlier() -> None:
    requests = Requests(1)
    for name, work in (("running", 100), ("large", 100), ("small", 1)):
        await requests.start(name, work)
    await requests.end("running", "small", "large")
    assert requests.order == ["running", "small", "large"]


async def test_a_large_request_is_overtaken_only_by_a_bounded_amount_of_work() -> None:
    requests = Requests(1)
    await requests.start("small 0", 1)
    large = await requests.start("large", 10)
    for number in range(1, 100_000):
        await requests.start(f"small {number}", 1)
        await requests.end(f"small {number - 1}")
        if requests.order[-1] == "large":
            break
    assert len(requests.order) <= 10 * PATIENCE + 1
    await requests.end("large")
    await large


async def test_a_waiter_that_is_cancelled_neither_takes_nor_frees_a_slot() -> None:
    requests = Requests(1)
    await requests.start("running", 10)
    waiter = await requests.start("cancelled", 10)
    waiter.cancel()
    await requests.start("next", 10)
    assert (requests.order, requests.turns.waiting) == (["running"], 1)
    await requests.end("running")
    assert requests.order == ["running", "next"]
    await requests.end("next")


async def test_a_slot_given_to_a_request_cancelled_in_the_same_moment_is_given_on() -> None:
    requests = Requests(1)
    await requests.start("running", 10)
    cancelled = await requests.start("cancelled", 10)
    await requests.start("next", 10)
    requests.may_end["running"].set()
    await asyncio.sleep(0)  # the slot is given, its new owner has not run yet
    assert requests.turns.waiting == 1
    cancelled.cancel()
    await settle()
    assert requests.order == ["running", "next"]
    await requests.end("next")


async def test_a_request_that_fails_frees_its_slot() -> None:
    turns = Turns(1)
    with contextlib.suppress(ZeroDivisionError):
        async with turns.take(1, 1):
            raise ZeroDivisionError
    async with asyncio.timeout(1), turns.take(1, 1):
        pass
