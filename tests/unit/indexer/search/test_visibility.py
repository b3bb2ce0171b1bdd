"""Search waits for Postgres for a moment only."""

import asyncio
from typing import Any

import pytest

from indexer.search.visibility import AVOIDED_S, RegistryVisibility
from shared.service.errors import DependencyError


class Postgres:
    """A pool whose server answers with no rows, or hangs.

    (A cancelled statement would wait for the server, too.)
    """

    def __init__(self) -> None:
        self.is_hanging = False
        self.asked = 0
        self.answer = asyncio.Event()

    async def fetch(self, _query: str, *_args: Any) -> list[Any]:
        self.asked += 1
        if self.is_hanging:
            await self.answer.wait()
            raise DependencyError("postgres", "the connection was lost")
        return []

    async def fetchrow(self, query: str, *args: Any) -> None:
        await self.fetch(query, *args)


class Rig:
    def __init__(self) -> None:
        self.postgres = Postgres()
        self.now = 0.0
        pool: Any = self.postgres
        self.visibility = RegistryVisibility(pool, answer_s=0.01, clock=lambda: self.now)


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_a_server_that_hangs_is_unavailable_and_left_alone_for_a_while(rig: Rig) -> None:
    rig.postgres.is_hanging = True
    with pytest.raises(DependencyError, match="no answer within"):
        await rig.visibility.target_of("docs")
    for _ in range(3):
        with pytest.raises(DependencyError, match="a moment ago"):
            await rig.visibility.live_versions("docs_1", ["id"])
    assert rig.postgres.asked == 1
    rig.now += AVOIDED_S
    rig.postgres.is_hanging = False
    assert await rig.visibility.live_versions("docs_1", ["id"]) == {}
    # The question that was given up ends in an error, which nobody waits for.
    rig.postgres.answer.set()


async def test_an_error_of_the_server_is_no_reason_to_leave_it_alone(rig: Rig) -> None:
    rig.postgres.is_hanging = True
    rig.postgres.answer.set()
    for asked in (1, 2):
        with pytest.raises(DependencyError, match="lost"):
            await rig.visibility.targets_in_use()
        assert rig.postgres.asked == asked
