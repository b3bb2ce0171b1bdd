"""Breakers: whether a dependency is at fault, and when work goes on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.runtime.faults.breaker import Breakers, Pauses
from shared.service.metrics import Metrics
from tests.support.waiting import wait_until


class Dependency:
    """Something whose canary can be told to fail."""

    def __init__(self, *, is_well: bool = True) -> None:
        self.is_well = is_well
        self.asked = 0

    async def canary(self) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if not self.is_well:
            raise ConnectionError("refused")


PAUSES = Pauses(first=0.001, longest=0.002)


@asynccontextmanager
async def recovering(breakers: Breakers) -> AsyncIterator[None]:
    task = asyncio.create_task(breakers.recover())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def breakers_of(**dependencies: Dependency) -> Breakers:
    return Breakers(
        {name: dependency.canary for name, dependency in dependencies.items()}, Metrics(), PAUSES
    )


async def test_if_the_canary_succeeds_the_request_is_at_fault_and_nothing_opens() -> None:
    breakers = breakers_of(tei=Dependency())
    assert await breakers.unavailable({"tei"}) == set()
    assert not breakers.is_any_open


async def test_a_failing_canary_opens_until_it_succeeds() -> None:
    tei = Dependency(is_well=False)
    breakers = breakers_of(tei=tei)
    assert await breakers.unavailable({"tei"}) == {"tei"}
    assert breakers.is_any_open
    async with recovering(breakers):
        waiting = asyncio.create_task(breakers.wait_closed())
        asked = tei.asked
        await wait_until(lambda: tei.asked >= asked + 3, description="three more canaries")
        assert not waiting.done()
        tei.is_well = True
        await asyncio.wait_for(waiting, 5)
    assert not breakers.is_any_open


async def test_one_canary_answers_for_all_requests_that_fail_together() -> None:
    tei = Dependency(is_well=False)
    breakers = breakers_of(tei=tei)
    answers = await asyncio.gather(*(breakers.unavailable({"tei"}) for _ in range(50)))
    assert answers == [{"tei"}] * 50
    assert tei.asked == 1


async def test_dependencies_have_breakers_of_their_own() -> None:
    breakers = breakers_of(tei=Dependency(is_well=False), qdrant=Dependency())
    assert await breakers.unavailable({"tei", "qdrant"}) == {"tei"}


async def test_a_dependency_without_a_canary_counts_as_unavailable() -> None:
    assert await breakers_of().unavailable({"search"}) == {"search"}


async def test_it_opens_and_closes_again_and_again() -> None:
    tei = Dependency()
    breakers = breakers_of(tei=tei)
    async with recovering(breakers):
        for _ in range(3):
            tei.is_well = False
            await breakers.unavailable({"tei"})
            assert breakers.is_any_open
            tei.is_well = True
            await asyncio.wait_for(breakers.wait_closed(), 5)
