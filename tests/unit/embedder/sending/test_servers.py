"""Several servers: work goes to available ones, and one that recovers is used again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from embedder.batcher import EmbeddingBatcher
from embedder.sending.packing import Capacity, RequestLimits, TextInput
from embedder.sending.servers import Server, Servers
from shared.service.errors import ConfigurationError, DependencyError
from shared.tei.client import Backoff, TeiBreakdownError
from tests.support.embedding import shared_of
from tests.support.tei_stand_in import vectors_of
from tests.support.waiting import wait_until
from tests.unit.embedder.sending.fake_tei import DIMENSION, FakeTei

CAPACITY = Capacity(
    request=RequestLimits(max_inputs=4, max_tokens=1000), inputs_in_flight=8, requests_in_flight=8
)
TEXTS = [f"text {number}" for number in range(40)]


class Rig:
    """A batcher over fake servers that say what they can take, or that they are another model."""

    def __init__(self, count: int) -> None:
        self.teis = [FakeTei() for _ in range(count)]
        self.capacities = [CAPACITY] * count
        self.strangers: set[int] = set()
        common = shared_of(DIMENSION, backoff=Backoff(initial_s=0.0))
        each = [
            Server(str(n), tei, lambda n=n: self._handshake(n), common)  # type: ignore[misc]
            for n, tei in enumerate(self.teis)
        ]
        self.servers = Servers(each, DIMENSION)
        self.batcher = EmbeddingBatcher(self.servers)

    async def _handshake(self, number: int) -> Capacity:
        await self.teis[number].probe()
        if number in self.strangers:
            raise ConfigurationError("another model")
        return self.capacities[number]

    async def embed(self, texts: list[str]) -> None:
        vectors = await self.batcher.embed([TextInput(text, 5) for text in texts])
        np.testing.assert_array_equal(vectors, vectors_of(texts, DIMENSION))

    def embedded(self, number: int) -> int:
        """Requests that a server got, canaries apart."""
        return sum(batch != ["canary"] for batch in self.teis[number].batches)


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    async with rig.servers, rig.batcher:
        yield rig
        await wait_until(
            lambda: not any(p.in_use for p in rig.servers.permits), description="permits given back"
        )


async def test_requests_are_spread_over_all_servers() -> None:
    async with running(Rig(3)) as rig:
        await rig.embed(TEXTS)
        counts = [rig.embedded(number) for number in range(3)]
    assert sum(counts) == 10
    assert min(counts) >= 2


async def test_what_a_dead_server_was_sent_is_done_by_the_others_and_no_document_fails() -> None:
    async with running(Rig(3)) as rig:
        rig.teis[1].go_down()
        await rig.embed(TEXTS)
        failed = rig.embedded(1)
        await rig.embed(TEXTS)
        assert rig.embedded(1) == failed <= 2, "nothing more is sent to it"


async def test_a_server_that_is_back_is_found_by_its_canary_and_used_again() -> None:
    async with running(Rig(2)) as rig:
        rig.teis[0].go_down()
        await rig.embed(TEXTS)
        rig.teis[0].restart()
        await wait_until(lambda: rig.servers.permits[0].is_open, description="the canary succeeds")
        before = rig.embedded(0)
        await rig.embed(TEXTS)
        assert rig.embedded(0) > before


async def test_tei_is_unavailable_only_when_all_its_servers_are_and_the_canary_says_so() -> None:
    async with running(Rig(2)) as rig:
        for tei in rig.teis:
            tei.go_down()
        with pytest.raises(DependencyError) as caught:
            await rig.embed(TEXTS)
        assert caught.value.service == "tei"
        with pytest.raises(DependencyError):
            await rig.servers.probe()
        rig.teis[1].restart()
        await rig.servers.probe()
        await rig.embed(TEXTS)


async def test_a_server_that_freezes_does_not_hold_up_the_canary_of_all() -> None:
    async with running(Rig(2)) as rig:
        rig.teis[0].gate.clear()
        await asyncio.wait_for(rig.servers.probe(), 1)
        rig.teis[0].gate.set()


async def test_a_server_that_is_not_there_at_the_start_joins_later() -> None:
    rig = Rig(2)
    rig.teis[1].go_down()
    async with running(rig):
        await rig.embed(TEXTS)
        assert rig.embedded(1) == 0
        rig.teis[1].restart()
        await wait_until(lambda: rig.servers.permits[1].is_open, description="it joins")
        await rig.embed(TEXTS)
        assert rig.embedded(1) > 0


async def test_no_server_at_all_at_the_start_is_a_dependency_error() -> None:
    rig = Rig(2)
    for tei in rig.teis:
        tei.go_down()
    with pytest.raises(DependencyError):
        await rig.servers.__aenter__()


async def test_a_server_of_another_model_stops_the_start_and_is_left_out_later() -> None:
    rig = Rig(2)
    rig.strangers.add(1)
    with pytest.raises(ConfigurationError):
        await rig.servers.__aenter__()
    rig.teis[1].go_down()
    async with running(rig):
        asked = len(rig.teis[1].batches)
        rig.teis[1].restart()
        await wait_until(lambda: len(rig.teis[1].batches) > asked + 1, description="the handshake")
        await rig.embed(TEXTS)
        assert rig.embedded(1) == 0


async def test_a_request_fits_the_server_that_gets_it() -> None:
    rig = Rig(2)
    small = RequestLimits(max_inputs=2, max_tokens=500, max_bytes=100)
    rig.capacities[1] = Capacity(request=small, inputs_in_flight=8, requests_in_flight=8)
    async with running(rig):
        await rig.embed(TEXTS)
    assert [max(len(batch) for batch in tei.batches) for tei in rig.teis] == [4, 2]


async def test_a_text_that_crashes_one_server_is_not_carried_to_the_others() -> None:
    async with running(Rig(3)) as rig:
        for tei in rig.teis:
            tei.stays_down = True
        with pytest.raises(TeiBreakdownError):
            await rig.embed(["a crash"])
        assert sum(tei.crashes for tei in rig.teis) == 1
        await rig.embed(TEXTS)
