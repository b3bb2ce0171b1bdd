"""A slow TEI costs no document an attempt: its clock runs only while TEI has one of its texts.

In virtual time, with the numbers of the measurement that showed the fault: 32 chunks a second, a
limit of 6 s, 24 documents of 300 chunks and 8 of 6.
"""

import asyncio
import random
from collections.abc import Sequence

import pytest

from embedder.batcher import EmbeddingBatcher
from embedder.sending.isolation import SendingRules
from embedder.sending.packing import Capacity, RequestLimits, TextInput
from embedder.sending.servers import Server, Servers, Shared
from shared.pipeline.lanes import Lane
from shared.runtime.time_limit import TimeLimit
from shared.service.metrics import Metrics
from shared.tei.client import Backoff, Embedded, ServerTiming, Vectors
from tests.support.embedding import always, shared_of
from tests.support.tei_stand_in import vectors_of
from tests.support.virtual_time import in_virtual_time
from tests.unit.embedder.sending.fake_tei import DIMENSION, FakeTei

INPUTS_PER_S = 32
LIMIT_S = 6.0
CAPACITY = Capacity(
    request=RequestLimits(max_inputs=32, max_tokens=16384), inputs_in_flight=460,
    requests_in_flight=80, batch_inputs=8,
)  # fmt: skip


class SlowTei(FakeTei):
    """Computes one input after the other, in the order in which they came."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = asyncio.Lock()

    async def embed_timed(self, texts: Sequence[str], dimension: int | None = None) -> Embedded:
        clock = asyncio.get_running_loop().time
        came = clock()
        async with self._turn:
            begun = clock()
            await asyncio.sleep(len(texts) / INPUTS_PER_S)
        vectors = await super().embed(texts, dimension)
        return Embedded(vectors, ServerTiming(queue_s=begun - came, inference_s=8 / INPUTS_PER_S))


async def embed(batcher: EmbeddingBatcher, texts: Sequence[str]) -> Vectors:
    """Embed a document as the runtime has it done."""
    async with TimeLimit(LIMIT_S) as limit:
        return await batcher.embed([TextInput(text, 200) for text in texts], Lane.NORMAL, limit)


def servers_of(tei: FakeTei, shared: Shared) -> Servers:
    return Servers([Server("tei", tei, always(CAPACITY), shared)], DIMENSION)


@in_virtual_time
async def test_no_document_runs_out_of_time_on_a_slow_server() -> None:
    rules = SendingRules(dimension=DIMENSION, backoff=Backoff())
    shared = Shared(rules=rules, metrics=Metrics(), observe=lambda _: None)
    sizes = [300] * 24 + [6] * 8
    random.Random(1).shuffle(sizes)
    documents = [[f"{number} {n}" for n in range(size)] for number, size in enumerate(sizes)]
    async with servers_of(SlowTei(), shared) as servers, EmbeddingBatcher(servers) as batcher:
        tasks = [asyncio.create_task(embed(batcher, texts)) for texts in documents]
        await asyncio.wait(tasks)
    assert [task for task in tasks if task.exception()] == []


@in_virtual_time
async def test_the_pause_after_a_refusal_does_not_count() -> None:
    """429 nine times: the tenth try comes after more than the limit of a document."""
    tei = FakeTei()
    tei.overloads = 9
    longest = Backoff(initial_s=LIMIT_S, cap_s=2 * LIMIT_S, jitter=lambda _, most: most)
    shared = shared_of(DIMENSION, backoff=longest)
    async with servers_of(tei, shared) as servers, EmbeddingBatcher(servers) as batcher:
        vectors = await embed(batcher, ["a"])
    assert (vectors == vectors_of(["a"], DIMENSION)).all()


@in_virtual_time
async def test_the_wait_for_a_turn_alone_does_not_count() -> None:
    """Ten texts on which TEI broke before share a request, and are sent one after the other."""
    texts = [f"quarantined {n}" for n in range(10)]
    shared = shared_of(DIMENSION)
    for text in texts:
        shared.rules.quarantine.broke([text])

    class Second(SlowTei):
        """Takes a second for each request."""

        async def embed_timed(self, texts: Sequence[str], dimension: int | None = None) -> Embedded:
            await asyncio.sleep(1)
            return await super().embed_timed(texts, dimension)

    async with servers_of(Second(), shared) as servers, EmbeddingBatcher(servers) as batcher:
        tasks = [asyncio.create_task(embed(batcher, [text])) for text in texts]
        await asyncio.wait(tasks)
    assert [task for task in tasks if task.exception()] == []


@in_virtual_time
async def test_a_text_that_tei_does_not_answer_runs_out_of_time() -> None:
    tei = FakeTei()
    tei.gate.clear()
    shared = shared_of(DIMENSION)
    async with servers_of(tei, shared) as servers, EmbeddingBatcher(servers) as batcher:
        with pytest.raises(TimeoutError):
            await embed(batcher, ["a"])
