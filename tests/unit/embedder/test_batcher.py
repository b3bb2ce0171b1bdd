"""The batcher: documents share requests and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.batcher import DRAIN_S, SORTED_REQUESTS, EmbeddingBatcher
from embedder.sending.packing import Capacity, RequestLimits, TextInput
from shared.pipeline.lanes import Lane
from shared.runtime.time_limit import TimeLimit
from shared.service.errors import DependencyError, DrainingError, RejectedError
from shared.tei.client import Backoff, Vectors
from tests.support.embedding import one_server, shared_of
from tests.support.tei_stand_in import vectors_of
from tests.support.waiting import wait_until
from tests.unit.embedder.sending.fake_tei import DIMENSION, FakeTei

CAPACITY = Capacity(
    request=RequestLimits(max_inputs=4, max_tokens=1000), inputs_in_flight=12, requests_in_flight=2
)


class Rig:
    """A running batcher over a fake TEI."""

    def __init__(
        self, capacity: Capacity = CAPACITY, linger_s: float = 0.003, drain_s: float = DRAIN_S
    ) -> None:
        self.tei = FakeTei()
        self.servers = one_server(
            self.tei, capacity, shared_of(DIMENSION, backoff=Backoff(initial_s=0.0))
        )
        self.permits = self.servers.permits[0]
        self.batcher = EmbeddingBatcher(self.servers, linger_s=linger_s, drain_s=drain_s)

    def start(self, *texts: str, lane: Lane = Lane.NORMAL) -> asyncio.Task[Vectors]:
        """Embed a document in a task of its own."""
        return asyncio.create_task(self.batcher.embed([TextInput(text, 5) for text in texts], lane))

    async def started(self, requests: int) -> None:
        await wait_until(
            lambda: len(self.tei.in_flight) == requests, description=f"{requests} requests"
        )


@asynccontextmanager
async def running(
    capacity: Capacity = CAPACITY, linger_s: float = 0.003, drain_s: float = DRAIN_S
) -> AsyncIterator[Rig]:
    """A rig that must end with all permits given back."""
    rig = Rig(capacity, linger_s, drain_s)
    async with rig.servers, rig.batcher:
        yield rig
        await wait_until(lambda: not rig.permits.in_use, description="all permits given back")
    assert rig.permits.requests_in_use == 0


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running() as rig:
        yield rig


def check(vectors: Vectors, *texts: str) -> None:
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, vectors_of(list(texts), DIMENSION))


async def test_documents_share_a_request_and_each_gets_its_own_vectors(rig: Rig) -> None:
    first, second = rig.start("a", "b"), rig.start("c")
    check(await first, "a", "b")
    check(await second, "c")
    assert len(rig.tei.batches) == 1


async def test_a_document_that_comes_within_the_linger_shares_the_request() -> None:
    async with running(linger_s=0.2) as rig:
        first = rig.start("a")
        await wait_until(
            lambda: len(rig.batcher._backlogs[Lane.NORMAL]) == 1,
            description="the first document waits",
        )
        second = rig.start("b")
        await asyncio.gather(first, second)
    assert rig.tei.batches == [["a", "b"]]


async def test_an_idle_batcher_does_not_wake_up(rig: Rig) -> None:
    await rig.start("a")
    assert not any(arrived.is_set() for arrived in rig.batcher._arrived.values())


async def test_a_long_document_is_spread_over_requests_and_comes_back_in_order(rig: Rig) -> None:
    texts = [f"text {index}" for index in range(50)]
    check(await rig.start(*texts), *texts)
    assert len(rig.tei.batches) == 13
    assert rig.tei.peak_requests == CAPACITY.requests_in_flight


async def test_the_limiter_bounds_the_inputs_in_flight() -> None:
    capacity = Capacity(request=CAPACITY.request, inputs_in_flight=9, requests_in_flight=80)
    async with running(capacity) as rig:
        rig.tei.gate.clear()
        documents = [rig.start(f"{number}-1", f"{number}-2") for number in range(12)]
        await rig.started(2)
        rig.permits.limit = 12
        await rig.started(3)
        rig.tei.gate.set()
        await asyncio.gather(*documents)
        assert rig.tei.peak_inputs == 12


async def test_a_document_that_waits_for_its_turn_loses_no_time() -> None:
    one_at_a_time = Capacity(request=CAPACITY.request, inputs_in_flight=4, requests_in_flight=1)
    async with running(one_at_a_time) as rig:
        rig.tei.gate.clear()
        first = rig.start(*"abcd")
        await rig.started(1)

        async def embed() -> Vectors:
            async with TimeLimit(0.05) as limit:
                return await rig.batcher.embed([TextInput("x", 5)], Lane.NORMAL, limit)

        waiting = asyncio.create_task(embed())
        await asyncio.sleep(0.15)
        assert not waiting.done()
        rig.tei.gate.set()
        check(await waiting, "x")
        await first
        rig.tei.gate.clear()
        with pytest.raises(TimeoutError):
            await embed()
        rig.tei.gate.set()


async def test_a_document_without_texts_has_no_vectors(rig: Rig) -> None:
    assert (await rig.start()).shape == (0, DIMENSION)
    assert rig.tei.batches == []


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.sampled_from(["good", "good", "good", "bad"]), max_size=12), max_size=12),
    st.sampled_from(Lane),
)
async def test_a_bad_text_fails_its_own_document_and_no_other(
    kinds: list[list[str]], lane: Lane
) -> None:
    documents = [
        [f"{kind} {number}.{index}" for index, kind in enumerate(kinds)]
        for number, kinds in enumerate(kinds)
    ]
    async with running() as rig:
        tasks = [rig.start(*texts, lane=lane) for texts in documents]
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for texts, result in zip(documents, results, strict=True):
        if any("bad" in text for text in texts):
            assert isinstance(result, RejectedError)
            assert result.reason.removeprefix("refused: ") in texts
        else:
            assert not isinstance(result, BaseException)
            check(result, *texts)
    assert rig.tei.peak_inputs <= CAPACITY.inputs_in_flight
    assert rig.tei.peak_requests <= CAPACITY.requests_in_flight


async def test_a_dependency_fault_fails_the_documents_concerned_and_later_ones_succeed(
    rig: Rig,
) -> None:
    rig.tei.go_down()
    results = await asyncio.gather(rig.start("a"), rig.start("b"), return_exceptions=True)
    assert [type(result) for result in results] == [DependencyError] * 2
    rig.tei.error = None
    check(await rig.start("a"), "a")


async def test_a_bug_below_reaches_the_document_and_does_not_stop_the_batcher(rig: Rig) -> None:
    rig.tei.error = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        await rig.start("a")
    rig.tei.error = None
    check(await rig.start("a"), "a")


async def test_a_document_that_fails_sends_no_more_texts(rig: Rig) -> None:
    texts = ["bad", *(f"text {index}" for index in range(200))]
    with pytest.raises(RejectedError):
        await rig.start(*texts)
    assert sum(map(len, rig.tei.batches)) < len(texts)


async def test_cancelling_a_document_leaves_its_neighbour_in_the_same_request_alone(
    rig: Rig,
) -> None:
    rig.tei.gate.clear()
    leaving, staying = rig.start("a", "b"), rig.start("c")
    await rig.started(1)
    leaving.cancel()
    await asyncio.wait([leaving])
    rig.tei.gate.set()
    check(await staying, "c")
    assert (leaving.cancelled(), rig.tei.cancelled) == (True, 0)


async def test_cancelling_a_document_withdraws_requests_that_are_its_own_and_texts_not_yet_sent(
    rig: Rig,
) -> None:
    rig.tei.gate.clear()
    leaving = rig.start(*(f"text {index}" for index in range(100)))
    await rig.started(2)
    staying = rig.start("c")
    leaving.cancel()
    await asyncio.wait([leaving])
    assert len(rig.batcher._backlogs[Lane.NORMAL]) == 1
    rig.tei.gate.set()
    check(await staying, "c")
    assert rig.tei.cancelled == 2
    assert len(rig.tei.batches) == 3


@pytest.mark.parametrize(("lane", "overtaken_by"), [(Lane.HIGH, 1), (Lane.LOW, SORTED_REQUESTS)])
async def test_a_small_document_overtakes_a_big_one(
    rig: Rig, lane: Lane, overtaken_by: int
) -> None:
    """In its lane what is not sorted yet; in a lower one all that is not in flight."""
    rig.tei.gate.clear()
    bulk = rig.start(*(f"bulk {index}" for index in range(400)), lane=Lane.LOW)
    await rig.started(2)
    small = rig.start("small", lane=lane)
    await asyncio.sleep(0.01)
    rig.tei.gate.set()
    check(await small, "small")
    assert [("small" in batch) for batch in rig.tei.batches].index(True) <= 2 + overtaken_by
    await bulk


async def test_a_flood_of_the_high_lane_leaves_some_to_the_low_one() -> None:
    async with running(CAPACITY) as rig:
        rig.tei.gate.clear()
        floods = [
            rig.start(*(f"{lane} {index}" for index in range(400)), lane=lane) for lane in Lane
        ]
        await rig.started(2)
        rig.tei.gate.set()
        await floods[0]
        sent = [text.split()[0] for batch in rig.tei.batches for text in batch]
        assert 0.08 < sent.count(Lane.LOW) / len(sent) < 0.2
        await asyncio.gather(*floods)


async def test_leaving_the_context_fails_waiting_documents_and_cancels_requests() -> None:
    rig = Rig()
    rig.tei.gate.clear()
    async with rig.servers, rig.batcher:
        sent = rig.start(*"abcdefghijkl")
        await rig.started(2)
        waiting = rig.start("z")
        await asyncio.sleep(0)
    for task in (sent, waiting):
        with pytest.raises(DependencyError, match="stopped"):
            await task
    assert rig.tei.in_flight == []


async def test_a_drain_gives_up_what_waits_at_once_and_finishes_what_is_in_flight(rig: Rig) -> None:
    rig.tei.gate.clear()
    in_flight = rig.start(*"abcd")
    await rig.started(1)
    partly_sent, waiting = rig.start(*"efghijkl"), rig.start("z")
    await rig.started(2)
    rig.batcher.drain()
    for task in (partly_sent, waiting, rig.start("new")):
        with pytest.raises(DrainingError):
            await task
    rig.tei.gate.set()
    check(await in_flight, *"abcd")


async def test_a_drain_waits_for_what_is_in_flight_for_some_seconds_only() -> None:
    async with running(drain_s=0.01) as rig:
        rig.tei.gate.clear()
        in_flight = rig.start("a")
        await rig.started(1)
        rig.batcher.drain()
        with pytest.raises(DrainingError):
            await in_flight
        assert rig.tei.cancelled == 1


async def test_a_document_that_gets_answers_is_within_its_time_limit() -> None:
    one_at_a_time = Capacity(request=CAPACITY.request, inputs_in_flight=4, requests_in_flight=1)
    async with running(one_at_a_time) as rig:
        rig.tei.gate.clear()

        async def embed() -> Vectors:
            async with TimeLimit(0.2) as limit:
                texts = [TextInput(str(number), 5) for number in range(40)]
                return await rig.batcher.embed(texts, Lane.NORMAL, limit)

        document = asyncio.create_task(embed())
        for request in range(10):
            await wait_until(
                lambda n=request: len(rig.tei.batches) == n + 1,  # type: ignore[misc]
                description="it is sent",
            )
            await asyncio.sleep(0.05)
            rig.tei.gate.set()
            rig.tei.gate.clear()
        check(await document, *map(str, range(40)))


@pytest.mark.parametrize("entered", [False, True])
async def test_a_batcher_that_does_not_run_says_so(entered: bool) -> None:
    rig = Rig()
    if entered:
        async with rig.servers, rig.batcher:
            pass
    with pytest.raises(DependencyError, match="not running"):
        await rig.start("a")


async def test_a_text_that_several_documents_have_is_embedded_once(rig: Rig) -> None:
    documents = [["menu", f"page {number}", "footer", "menu"] for number in range(5)]
    tasks = [rig.start(*texts) for texts in documents]
    for task, texts in zip(tasks, documents, strict=True):
        check(await task, *texts)
    assert sum(map(len, rig.tei.batches)) == 2 + 5


async def test_a_text_that_is_in_flight_already_is_not_sent_again(rig: Rig) -> None:
    rig.tei.gate.clear()
    first = rig.start("menu", "a")
    await rig.started(1)
    second = rig.start("menu", "b", lane=Lane.HIGH)
    await rig.started(2)
    rig.tei.gate.set()
    check(await first, "menu", "a")
    check(await second, "menu", "b")
    assert rig.tei.batches == [["menu", "a"], ["b"]]


@pytest.mark.parametrize("is_sent", [True, False])
async def test_a_document_that_leaves_takes_no_text_from_the_others(
    rig: Rig, is_sent: bool
) -> None:
    rig.tei.gate.clear()
    busy = rig.start(*(f"busy {index}" for index in range(4)))
    await rig.started(1)
    if not is_sent:
        rig.permits.limit = 1
    leaving, staying = rig.start("menu", "a"), rig.start("menu", "b")
    if is_sent:
        await rig.started(2)
    else:
        await asyncio.sleep(0.01)
    leaving.cancel()
    await asyncio.wait([leaving])
    rig.tei.gate.set()
    check(await staying, "menu", "b")
    await busy


async def test_a_text_can_be_sent_again_after_all_documents_that_wanted_it_have_left(
    rig: Rig,
) -> None:
    rig.tei.gate.clear()
    leaving = rig.start("menu")
    await rig.started(1)
    leaving.cancel()
    again = rig.start("menu")
    await asyncio.wait([leaving])
    rig.tei.gate.set()
    check(await again, "menu")
    assert rig.tei.cancelled == 1


async def test_a_refused_text_fails_all_documents_that_have_it_and_only_those(rig: Rig) -> None:
    results = await asyncio.gather(
        rig.start("bad", "a"), rig.start("bad", "b"), rig.start("c"), return_exceptions=True
    )
    assert [isinstance(result, RejectedError) for result in results] == [True, True, False]
