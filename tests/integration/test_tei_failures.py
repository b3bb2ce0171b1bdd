"""The embedded TEI's application over a model that fails: how its errors look from outside."""

from collections.abc import AsyncIterator

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request

from local.tei.app import build_app
from local.tei.batch import DIMENSION, Vectors
from local.tei.contract import Info, Limits
from local.tei.engine import Engine
from shared.tei.tokenizer import load_tokenizer


class Model:
    is_broken = True

    def __call__(self, ids: npt.NDArray[np.int64], _lengths: npt.NDArray[np.int32]) -> Vectors:
        if self.is_broken:
            raise RuntimeError("no memory left")
        return np.ones((len(ids), DIMENSION), np.float32)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
async def client(model: Model) -> AsyncIterator[TestClient[Request, Application]]:
    limits = Limits(max_concurrent_requests=32)
    engine = Engine(load_tokenizer(None), model, limits, threads=1)
    info = Info(
        model_id="broken",
        model_sha="0",
        model_type={},
        max_concurrent_requests=limits.max_concurrent_requests,
        max_input_length=limits.max_input_length,
        max_batch_tokens=limits.max_batch_tokens,
        max_batch_requests=8,
        max_client_batch_size=limits.max_client_batch_size,
        tokenization_workers=1,
    )
    async with TestClient(TestServer(build_app(engine, info, limits))) as client:
        yield client
    engine.close()


async def test_a_failing_model_is_424_and_unhealthy_until_it_works_again(
    client: TestClient[Request, Application], model: Model
) -> None:
    answer = await client.post("/embed", json={"inputs": ["a", "b"]})
    assert answer.status == 424
    assert await answer.json() == {
        "error": "Backend error: no memory left",
        "error_type": "Backend",
    }

    health = await client.get("/health")
    assert health.status == 503
    assert await health.json() == {"error": "unhealthy", "error_type": "Unhealthy"}

    model.is_broken = False
    assert (await client.get("/health")).status == 200
    answer = await client.post("/embed", json={"inputs": ["a", "b"], "normalize": False})
    assert msgspec.json.decode(await answer.read()) == [[1.0] * DIMENSION] * 2


async def test_a_failing_model_keeps_no_permits(client: TestClient[Request, Application]) -> None:
    for _ in range(3):
        assert (await client.post("/embed", json={"inputs": ["x"] * 32})).status == 424
