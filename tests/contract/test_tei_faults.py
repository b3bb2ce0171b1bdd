"""Everything that can go wrong between the embedder and TEI, played by the stand-in over a real
connection.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import numpy as np
import pytest

from embedder.batcher import EmbeddingBatcher
from embedder.sending.isolation import EmbeddingCall
from embedder.sending.packing import Capacity, TextInput, capacity_of
from shared.service.errors import DependencyError, MillstreamError, RejectedError
from shared.tei.client import (
    Backoff,
    BreakingTextError,
    InputRejectedError,
    TeiBackendError,
    TeiBreakdownError,
    TeiClient,
    TeiOverloadedError,
    Vectors,
)
from tests.support.embedding import in_use, one_server, shared_of
from tests.support.tei_stand_in import Fault, StandInSettings, TeiStandIn, vectors_of
from tests.support.waiting import wait_until

DIMENSION = 8
SETTINGS = StandInSettings(dimension=DIMENSION)

MEANING: dict[Fault, type[MillstreamError]] = dict.fromkeys(Fault, DependencyError) | {
    Fault.OVERLOADED: TeiOverloadedError,
    Fault.BACKEND: TeiBackendError,
    Fault.REJECTED: InputRejectedError,
    **dict.fromkeys((Fault.RESET, Fault.CUT, Fault.NULL, Fault.ZERO), TeiBreakdownError),
}


class Rig:
    """A stand-in and what the embedder has against it."""

    def __init__(self, tei: TeiStandIn, session: aiohttp.ClientSession, timeout_s: float) -> None:
        self.tei = tei
        self.client = TeiClient(session, tei.url, timeout_s=timeout_s)
        self.calls: list[EmbeddingCall] = []

    @asynccontextmanager
    async def batcher(self, capacity: Capacity | None = None) -> AsyncIterator[EmbeddingBatcher]:
        capacity = capacity or capacity_of(await self.client.info(), max_requests=80)
        common = shared_of(DIMENSION, self.calls.append, Backoff(initial_s=0.01, cap_s=0.1))
        async with (
            one_server(self.client, capacity, common) as servers,
            EmbeddingBatcher(servers) as batcher,
        ):
            yield batcher
            await wait_until(lambda: not in_use(servers), description="all permits given back")

    async def embed(self, *documents: list[str]) -> list[Vectors | BaseException]:
        """Embed documents at the same time through one batcher."""
        async with self.batcher() as batcher:
            tasks = (batcher.embed(inputs(texts)) for texts in documents)
            return await asyncio.gather(*tasks, return_exceptions=True)


def inputs(texts: list[str]) -> list[TextInput]:
    return [TextInput(text, len(text.split()) + 2) for text in texts]


def pages(count: int, chunks: int) -> list[list[str]]:
    return [[f"chunk {index} of page {page}" for index in range(chunks)] for page in range(count)]


def check(result: Vectors | BaseException, texts: list[str]) -> None:
    assert not isinstance(result, BaseException), result
    np.testing.assert_array_equal(result, vectors_of(texts, DIMENSION))


@asynccontextmanager
async def against(
    settings: StandInSettings = SETTINGS, timeout_s: float = 5.0
) -> AsyncIterator[Rig]:
    async with TeiStandIn(settings) as tei, aiohttp.ClientSession() as session:
        yield Rig(tei, session, timeout_s)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with against() as rig:
        yield rig


@pytest.mark.parametrize(
    "fault", [fault for fault in Fault if fault is not Fault.HANG], ids=lambda f: f.name
)
async def test_a_fault_is_named_and_the_next_request_succeeds(rig: Rig, fault: Fault) -> None:
    rig.tei.fail(fault)
    with pytest.raises(MillstreamError) as caught:
        await rig.client.embed(["a", "b"], DIMENSION)
    assert type(caught.value) is MEANING[fault]
    check(await rig.client.embed(["a", "b"], DIMENSION), ["a", "b"])


async def test_a_server_that_does_not_answer_costs_the_timeout_and_no_more() -> None:
    async with against(timeout_s=0.05) as rig:
        rig.tei.fail(Fault.HANG)
        with pytest.raises(DependencyError, match=r"no answer to /embed within 0\.05 s"):
            await rig.client.embed(["a"])
        await wait_until(
            lambda: rig.tei.counts.abandoned == 1, description="the connection is given up"
        )


async def test_a_server_that_is_not_there_is_a_dependency_fault_until_it_is_back(rig: Rig) -> None:
    await rig.tei.stop()
    for ask in (rig.client.info, rig.client.health, rig.client.probe):
        with pytest.raises(DependencyError, match="tei"):
            await ask()
    await rig.tei.start()
    assert await rig.client.probe() == DIMENSION


async def test_a_server_that_is_not_well_or_not_tei_is_a_dependency_fault(rig: Rig) -> None:
    rig.tei.health_status = 503
    with pytest.raises(DependencyError, match="503"):
        await rig.client.health()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(DependencyError, match="404"):
            await TeiClient(session, f"{rig.tei.url}/nothing").info()


@pytest.mark.parametrize(
    "fault", [Fault.REJECTED, Fault.BACKEND, Fault.RESET, Fault.NULL], ids=lambda f: f.name
)
@pytest.mark.parametrize("version", ["1.9.3", "1.8.3"])
async def test_one_bad_text_fails_its_document_and_no_other(fault: Fault, version: str) -> None:
    async with against(StandInSettings(dimension=DIMENSION, version=version)) as rig:
        documents = pages(count=6, chunks=9)
        rig.tei.break_on(lambda text: text == "chunk 4 of page 2", fault)
        results = await rig.embed(*documents)
    assert type(results.pop(2)) is (
        InputRejectedError if fault is Fault.REJECTED else BreakingTextError
    )
    for result, texts in zip(results, documents[:2] + documents[3:], strict=True):
        check(result, texts)


@pytest.mark.parametrize(
    "fault",
    [Fault.UNAVAILABLE, Fault.RESET, Fault.NULL, Fault.WRONG_DIMENSION],
    ids=lambda fault: fault.name,
)
async def test_an_outage_costs_documents_no_attempt_and_ends_with_it(
    rig: Rig, fault: Fault
) -> None:
    documents = pages(count=3, chunks=4)
    rig.tei.fail_always(fault)
    for result in await rig.embed(*documents):
        assert isinstance(result, DependencyError)
        assert not result.may_be_at_fault
    assert rig.tei.counts.requests <= 3
    rig.tei.heal()
    for result, texts in zip(await rig.embed(*documents), documents, strict=True):
        check(result, texts)


async def test_garbage_in_a_tenth_of_the_answers_never_becomes_a_vector(rig: Rig) -> None:
    documents = pages(count=60, chunks=20)
    rig.tei.break_on(lambda text: text == "chunk 7 of page 20", Fault.NAN)
    rig.tei.fail_always(Fault.NULL, share=0.1)
    results = await rig.embed(*documents)
    failed = [result for result in results if isinstance(result, BaseException)]
    assert 0 < len(failed) < len(documents)
    assert {type(error) for error in failed} == {DependencyError}
    for result, texts in zip(results, documents, strict=True):
        if not isinstance(result, BaseException):
            check(result, texts)


@pytest.mark.parametrize(
    ("version", "permits", "expected_peak"),
    [("1.9.3", 100, 90), ("1.8.3", 4, 4)],
    ids=["1.9", "1.8"],
)
async def test_a_batcher_alone_never_meets_back_pressure(
    version: str, permits: int, expected_peak: int
) -> None:
    settings = StandInSettings(
        dimension=DIMENSION, version=version, max_concurrent_requests=permits, latency_s=0.005
    )
    async with against(settings) as rig:
        documents = pages(count=40, chunks=11)
        for result, texts in zip(await rig.embed(*documents), documents, strict=True):
            check(result, texts)
        assert rig.tei.counts.overloaded == 0
        assert expected_peak * 0.6 < rig.tei.counts.peak_permits <= expected_peak


async def test_embedders_that_compete_for_permits_wait_for_each_other() -> None:
    settings = StandInSettings(dimension=DIMENSION, max_concurrent_requests=40, latency_s=0.002)
    async with against(settings) as rig:
        documents = pages(count=10, chunks=16)
        first, second = await asyncio.gather(rig.embed(*documents), rig.embed(*documents))
        assert rig.tei.counts.overloaded > 0
    for results in (first, second):
        for result, texts in zip(results, documents, strict=True):
            check(result, texts)


async def test_a_payload_limit_below_ours_is_met_by_splitting() -> None:
    async with against(StandInSettings(dimension=DIMENSION, payload_limit=600)) as rig:
        documents = [["x" * (20 * index + 1) for index in range(12)], ["y" * 700]]
        fits, too_big = await rig.embed(*documents)
    check(fits, documents[0])
    assert isinstance(too_big, RejectedError)
    assert "413" in too_big.reason


async def test_small_documents_share_a_request(rig: Rig) -> None:
    documents = pages(count=30, chunks=1)
    for result, texts in zip(await rig.embed(*documents), documents, strict=True):
        check(result, texts)
    assert rig.tei.counts.requests == 1
    assert [(call.inputs, call.tokens, call.error) for call in rig.calls] == [(30, 30 * 7, None)]
    assert 0 < rig.calls[0].duration_s < 5


async def test_a_cancelled_document_frees_the_server_and_leaves_other_vectors_alone(
    rig: Rig,
) -> None:
    rig.tei.hold()
    big, small = pages(count=2, chunks=64)
    async with rig.batcher() as batcher:
        leaving = asyncio.create_task(batcher.embed(inputs(big)))
        await wait_until(
            lambda: rig.tei.in_flight == 2, description="two requests of the first document"
        )
        staying = asyncio.create_task(batcher.embed(inputs(small)))
        await wait_until(
            lambda: rig.tei.in_flight == 4, description="two requests of the second document"
        )
        leaving.cancel()
        await wait_until(
            lambda: rig.tei.counts.abandoned == 2, description="its requests are given up"
        )
        rig.tei.release()
        check(await staying, small)
    assert rig.tei.counts.permits == 0
