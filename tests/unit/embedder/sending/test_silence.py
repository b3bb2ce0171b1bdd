"""The limit on silence: signs of life keep requests waiting, silence ends them."""

import asyncio

import pytest

from embedder.sending.silence import SilenceLimit
from shared.service.errors import DependencyError

SHORT = 0.03


class Asked:
    """A server that is asked whether it is alive."""

    def __init__(self, answers: int) -> None:
        self.answers = answers  # then it is silent
        self.times = 0
        self.was_asked = asyncio.Event()

    async def __call__(self) -> None:
        self.times += 1
        self.was_asked.set()
        if self.times > self.answers:
            raise DependencyError("tei", "refused")


async def test_a_silent_server_ends_the_request() -> None:
    asked = Asked(answers=0)
    with pytest.raises(DependencyError, match="no sign of life"):
        async with SilenceLimit(SHORT, asked).watched():
            await asyncio.Event().wait()
    assert asked.times == 1


async def test_a_server_that_freezes_ends_the_request_too() -> None:
    async def freeze() -> None:
        await asyncio.Event().wait()

    with pytest.raises(DependencyError, match="no sign of life"):
        async with SilenceLimit(SHORT, freeze).watched():
            await asyncio.Event().wait()


async def test_a_server_that_answers_when_asked_is_waited_for() -> None:
    asked = Asked(answers=3)
    with pytest.raises(DependencyError):
        async with SilenceLimit(SHORT, asked).watched():
            await asyncio.Event().wait()
    assert asked.times == 4


async def test_answers_to_other_requests_are_signs_of_life() -> None:
    asked = Asked(answers=0)
    limit = SilenceLimit(SHORT, asked)
    async with limit.watched():
        for _ in range(10):
            await asyncio.sleep(SHORT / 5)
            limit.heard()
    assert asked.times == 0


async def test_nothing_is_asked_after_the_request() -> None:
    asked = Asked(answers=0)
    async with SilenceLimit(SHORT, asked).watched():
        pass
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asked.was_asked.wait(), 3 * SHORT)
