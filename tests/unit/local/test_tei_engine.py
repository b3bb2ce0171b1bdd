import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import numpy as np
import numpy.typing as npt
import pytest

from local.tei.batch import Vectors
from local.tei.contract import ErrorType, Limits, TeiError
from local.tei.engine import Engine
from tests.support.waiting import wait_until
from tests.unit.local.test_tei_tokenization import WORDS, word_tokenizer

Ids = npt.NDArray[np.int64]
Lengths = npt.NDArray[np.int32]


class Model:
    """A model whose vectors are `[length, first word]`; `on_run` may block it or make it fail."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.on_run: Callable[[], object] = lambda: None

    def __call__(self, ids: Ids, lengths: Lengths) -> Vectors:
        self.runs.append(lengths.tolist())
        self.on_run()
        return np.stack([lengths, ids[:, 1]], axis=1).astype(np.float32)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
async def engine(model: Model, request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    engine = Engine(word_tokenizer(), model, Limits(), threads=request.param)
    yield engine
    engine.close()


def text_of(word: int, length: int) -> str:
    return " ".join([WORDS[word]] * length)


async def test_vectors_are_in_input_order_whatever_their_lengths(
    engine: Engine, model: Model
) -> None:
    lengths = [5, 90, 1, 33, 200, 2, 7, 64, 1, 12, 254, 3]
    texts = [text_of(index, length) for index, length in enumerate(lengths)]
    embeddings = await engine.embed(texts, None)
    assert embeddings.vectors.tolist() == [
        [length + 2, 3 + index] for index, length in enumerate(lengths)
    ]
    assert embeddings.tokens == sum(lengths) + 2 * len(lengths)
    assert len(model.runs) == 3


async def test_requests_at_the_same_time_get_their_own_vectors(engine: Engine) -> None:
    requests = [[text_of(word, 1 + word % 7)] * (1 + word) for word in range(20)]
    answers = await asyncio.gather(*(engine.embed(texts, None) for texts in requests))
    for word, answer in enumerate(answers):
        assert answer.vectors.tolist() == [[3 + word % 7, 3 + word]] * (1 + word)


async def test_a_failing_model_is_a_backend_error_and_unhealthy_until_it_works(
    engine: Engine, model: Model
) -> None:
    def fail() -> None:
        raise RuntimeError("no memory left")

    assert await engine.is_healthy()
    model.on_run = fail
    with pytest.raises(TeiError, match="Backend error: no memory left") as caught:
        await engine.embed([text_of(0, 1)] * 20, None)
    assert caught.value.error_type is ErrorType.BACKEND
    assert not await engine.is_healthy()
    model.on_run = lambda: None
    assert await engine.is_healthy()


async def test_a_short_request_does_not_wait_for_all_of_a_long_one(model: Model) -> None:
    engine = Engine(word_tokenizer(), model, Limits(), threads=1)
    may_run = threading.Semaphore(0)
    model.on_run = may_run.acquire
    try:
        async with asyncio.timeout(10):
            long = asyncio.create_task(engine.embed([text_of(0, 62)] * 32, None))
            await wait_until(lambda: model.runs, description="the model runs")
            short = asyncio.create_task(engine.embed([text_of(1, 1)], None))
            await wait_until(lambda: engine._turns.waiting, description="the short request waits")
            may_run.release(2)
            await short
            assert not long.done()
            may_run.release(3)
            await long
    finally:
        may_run.release(8)
        engine.close()
    assert model.runs == [[64] * 8, [3], [64] * 8, [64] * 8, [64] * 8]


async def test_a_cancelled_request_leaves_the_threads_to_the_others(
    engine: Engine, model: Model
) -> None:
    may_run = threading.Event()
    model.on_run = may_run.wait
    gone = asyncio.create_task(engine.embed([text_of(0, 62)] * 32, None))
    async with asyncio.timeout(10):
        await wait_until(lambda: model.runs, description="the model runs")
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        may_run.set()
        assert (await engine.embed([text_of(1, 1)], None)).vectors.tolist() == [[3, 4]]
    assert len([run for run in model.runs if run == [64] * 8]) < 4
