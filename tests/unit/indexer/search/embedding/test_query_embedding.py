"""Queries go to the TEI server that has the fewest, and to the next one when that fails."""

import asyncio

import numpy as np
import pytest

from indexer.search.embedding import query_embedding
from indexer.search.embedding.query_embedding import QueryEmbedder
from shared.service.errors import DependencyError, RejectedError
from shared.tei.client import TeiClient, TeiInfo, Vectors
from tests.support.waiting import wait_until


class Client(TeiClient):
    """A server that answers, fails or hangs."""

    def __init__(self, number: int) -> None:
        super().__init__(None, "http://tei:80")  # type: ignore[arg-type]
        self.number = number
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = 0
        self.is_alive = False  # whether it answers /health
        self.model = "m"

    async def health(self) -> None:
        if not self.is_alive:
            await asyncio.Event().wait()

    async def info(self) -> TeiInfo:
        return TeiInfo(
            model_id=self.model, version="1.9.3", max_input_length=512, max_batch_tokens=16384,
            max_client_batch_size=32, max_concurrent_requests=512,
        )  # fmt: skip

    async def embed_query(self, text: str) -> Vectors:
        self.asked += 1
        await self.gate.wait()
        if self.error:
            raise self.error
        return np.full(2, self.number, np.float32)


class Rig:
    def __init__(self, try_s: float | None = None) -> None:
        self.first, self.second = Client(1), Client(2)
        self.now = 0.0
        self.embed = QueryEmbedder(
            [self.first, self.second], lambda _: None, clock=lambda: self.now, try_s=try_s
        )

    async def answer(self, text: str, model: str | None = "m") -> int:
        """The number of the server that answered."""
        return int((await self.embed(text, model))[0])


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_a_query_goes_where_the_fewest_are_in_flight(rig: Rig) -> None:
    rig.first.gate.clear()
    waiting = asyncio.create_task(rig.embed("one", "m"))
    await asyncio.sleep(0)
    assert await rig.answer("two") == rig.second.number
    rig.first.gate.set()
    await waiting


async def test_a_failure_is_made_good_by_the_next_server_and_remembered_for_a_while(
    rig: Rig,
) -> None:
    rig.first.error = DependencyError("tei", "refused")
    for _ in range(3):
        assert await rig.answer("query") == rig.second.number
    assert rig.first.asked == 1
    rig.first.error = None
    rig.now += query_embedding.AVOIDED_S
    assert await rig.answer("query") == rig.first.number


async def test_only_if_all_fail_the_query_fails(rig: Rig) -> None:
    rig.first.error = rig.second.error = DependencyError("tei", "refused")
    with pytest.raises(DependencyError):
        await rig.embed("query", "m")
    assert rig.second.asked == 1
    rig.second.error = None
    assert await rig.answer("query") == rig.second.number


async def test_a_query_that_is_refused_is_refused_by_one(rig: Rig) -> None:
    rig.first.error = RejectedError("tei_rejected", "too long")
    with pytest.raises(RejectedError):
        await rig.embed("query", "m")
    assert rig.second.asked == 0


async def test_a_frozen_server_costs_one_query_a_moment() -> None:
    rig = Rig(try_s=0.01)
    rig.first.gate.clear()
    assert await rig.answer("query") == rig.second.number
    assert await rig.answer("query") == rig.second.number
    assert rig.first.asked == 1


async def test_while_all_servers_are_frozen_the_next_queries_do_not_wait() -> None:
    rig = Rig(try_s=0.01)
    for server in (rig.first, rig.second):
        server.gate.clear()
    for _ in range(3):
        with pytest.raises(DependencyError):
            await rig.embed("query", "m")
    assert (rig.first.asked, rig.second.asked) == (1, 1)
    rig.now += query_embedding.AVOIDED_S
    rig.second.gate.set()
    assert await rig.answer("query") == rig.second.number


async def test_servers_that_are_only_busy_are_asked_by_the_next_query() -> None:
    rig = Rig(try_s=0.01)
    for server in (rig.first, rig.second):
        server.gate.clear()
        server.is_alive = True
    with pytest.raises(DependencyError, match="within"):
        await rig.embed("query", "m")
    await wait_until(lambda: not rig.embed._asked, description="both have said that they are alive")
    for server in (rig.first, rig.second):
        server.gate.set()
    assert await rig.answer("query") in {1, 2}


async def test_a_server_of_another_model_gets_no_query(rig: Rig) -> None:
    rig.first.model = "another"
    assert await rig.answer("query") == rig.second.number
    assert rig.first.asked == 0
    assert await rig.answer("query", model=None) == rig.second.number  # the first is avoided


async def test_if_all_servers_have_another_model_the_query_fails_with_both_names(rig: Rig) -> None:
    rig.first.model = rig.second.model = "another"
    with pytest.raises(
        DependencyError, match="serves another, but the collection has vectors of m"
    ):
        await rig.embed("query", "m")
    rig.second.model = "m"
    assert await rig.answer("query") == rig.second.number


async def test_a_server_that_comes_back_with_another_model_gets_no_query(rig: Rig) -> None:
    assert await rig.answer("query") == rig.first.number
    rig.first.error = DependencyError("tei", "refused")
    assert await rig.answer("query") == rig.second.number
    rig.first.error, rig.first.model = None, "another"
    rig.now += query_embedding.AVOIDED_S
    assert await rig.answer("query") == rig.second.number
    assert rig.first.asked == 2
