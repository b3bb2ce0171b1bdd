"""What the embedder relies on in a TEI server: the stand-in and the embedded server must both give
it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator

import aiohttp
import msgspec
import numpy as np
import pytest
from aiohttp import web

from embedder.batcher import EmbeddingBatcher
from embedder.sending.isolation import EmbeddingCall
from embedder.sending.packing import TextInput, capacity_of
from shared.service.errors import DependencyError, RejectedError
from shared.tei.client import InputRejectedError, TeiClient, TeiOverloadedError
from tests.support.embedding import one_server, shared_of
from tests.support.ingest_server import serving
from tests.support.tei_server import tei_server
from tests.support.tei_stand_in import StandInSettings, TeiStandIn

KEY = "a key that only this test knows"
PERMITS = 40  # fewer than two full requests need


class Server(msgspec.Struct):
    url: str
    session: aiohttp.ClientSession

    def client(self, api_key: str = KEY) -> TeiClient:
        return TeiClient(self.session, self.url, api_keys=[api_key] if api_key else [])


@pytest.fixture(scope="module")
def embedded_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    options = ("--max-concurrent-requests", str(PERMITS))
    with tei_server(tmp_path_factory.mktemp("tei"), *options, key=KEY) as url:
        yield url


@pytest.fixture(params=["stand-in", "embedded"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    async with aiohttp.ClientSession() as session:
        if request.param == "embedded":
            yield Server(request.getfixturevalue("embedded_url"), session)
            return
        settings = StandInSettings(max_concurrent_requests=PERMITS, api_key=KEY, latency_s=0.05)
        async with TeiStandIn(settings) as tei:
            yield Server(tei.url, session)


@pytest.fixture
def client(server: Server) -> TeiClient:
    return server.client()


@pytest.mark.own_server("tei")
async def test_info_tells_model_version_and_limits(client: TeiClient) -> None:
    info = await client.info()
    assert info.model_id
    assert info.counts_inputs
    assert info.max_concurrent_requests == PERMITS
    assert info.max_client_batch_size == 32
    assert info.max_input_length >= 256
    assert info.max_batch_tokens == 16_384


async def test_health_is_good_without_a_key(server: Server) -> None:
    await server.client(api_key="").health()


async def test_vectors_have_unit_length_and_the_probed_dimension(client: TeiClient) -> None:
    dimension = await client.probe()
    vectors = await client.embed(["one", "two words", "three words here"], dimension)
    assert vectors.shape == (3, dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


async def test_a_text_has_the_same_vector_alone_and_among_others_in_any_order(
    client: TeiClient,
) -> None:
    texts = [" ".join(["word", str(number)] * (1 + number % 7)) for number in range(20)]
    together = await client.embed(texts)
    backwards = await client.embed(texts[::-1])
    np.testing.assert_allclose(together, backwards[::-1], atol=1e-5)
    np.testing.assert_allclose((await client.embed([texts[6]]))[0], together[6], atol=1e-5)
    assert np.linalg.norm(together[0] - together[6]) > 0.01


async def test_a_model_of_another_dimension_is_noticed(client: TeiClient) -> None:
    with pytest.raises(DependencyError, match="dimension"):
        await client.embed(["text"], await client.probe() + 1)


@pytest.mark.parametrize("neighbours", [[], ["a good text"]])
async def test_an_empty_text_is_rejected(client: TeiClient, neighbours: list[str]) -> None:
    with pytest.raises(InputRejectedError, match="empty"):
        await client.embed([*neighbours, ""])


@pytest.mark.parametrize("neighbours", [[], ["a good text"]])
async def test_a_text_above_the_window_is_rejected_and_never_truncated(
    client: TeiClient, neighbours: list[str]
) -> None:
    with pytest.raises(InputRejectedError, match="tokens"):
        await client.embed([*neighbours, "word " * 600])


async def test_of_a_query_above_the_window_its_beginning_counts(client: TeiClient) -> None:
    long, beginning = (
        await client.embed_query("word " * 600),
        await client.embed_query("word " * 590),
    )
    np.testing.assert_allclose(long, beginning, atol=1e-5)
    np.testing.assert_allclose(
        await client.embed_query("short"), (await client.embed(["short"]))[0], atol=1e-5
    )


async def test_too_many_texts_are_rejected(client: TeiClient) -> None:
    with pytest.raises(InputRejectedError, match="batch size 33"):
        await client.embed(["text"] * 33)


async def test_a_payload_above_the_limit_is_rejected(client: TeiClient) -> None:
    with pytest.raises(InputRejectedError, match="413"):
        await client.embed(["x" * 2_100_000])


async def test_a_text_that_is_not_unicode_is_rejected(client: TeiClient) -> None:
    with pytest.raises(InputRejectedError, match="surrogate"):
        await client.embed(["good", "bad \ud800"])


@pytest.mark.parametrize(
    "text",
    ["\x00", "\u2028", "👩‍🚀" * 20, '"\\\n\t', "עברית ไทย 中文"],
    ids=["NUL", "line separator", "joined emoji", "escapes", "scripts"],
)
async def test_odd_characters_are_embedded(client: TeiClient, text: str) -> None:
    assert (await client.embed([f"a word, {text}"])).shape[0] == 1


@pytest.mark.own_server("tei")
async def test_a_wrong_key_is_a_dependency_fault(server: Server) -> None:
    with pytest.raises(DependencyError, match="401"):
        await server.client("wrong").embed(["text"])
    with pytest.raises(DependencyError, match="401"):
        await server.client("wrong").info()


@pytest.mark.own_server("tei")
async def test_inputs_above_the_permits_are_back_pressure(client: TeiClient) -> None:
    requests = [
        client.embed([f"text {index} of {number}" for index in range(30)]) for number in range(4)
    ]
    results = await asyncio.gather(*requests, return_exceptions=True)
    kinds = {type(result) for result in results}
    assert kinds == {np.ndarray, TeiOverloadedError}


async def test_the_batcher_stays_within_the_permits_and_isolates_bad_documents(
    client: TeiClient,
) -> None:
    calls: list[EmbeddingCall] = []
    capacity = capacity_of(await client.info(), max_requests=80)
    common = shared_of(await client.probe(), calls.append)
    documents = [[f"chunk {index} of page {number}" for index in range(7)] for number in range(12)]
    documents[3][5] = ""
    documents[8][0] = "word " * 600
    async with (
        one_server(client, capacity, common) as servers,
        EmbeddingBatcher(servers) as batcher,
    ):
        results = await asyncio.gather(
            *(batcher.embed([TextInput(text, 9) for text in texts]) for texts in documents),
            return_exceptions=True,
        )
    failed = {
        number: result for number, result in enumerate(results) if isinstance(result, Exception)
    }
    assert {number: type(error) for number, error in failed.items()} == {
        3: InputRejectedError,
        8: InputRejectedError,
    }
    assert all(
        isinstance(error, RejectedError) and error.code == "tei_rejected"
        for error in failed.values()
    )
    assert not any(isinstance(call.error, DependencyError) for call in calls)
    expected = await client.embed(documents[0])
    np.testing.assert_allclose(results[0], expected, atol=1e-5)  # type: ignore[arg-type]


async def test_answers_say_what_their_time_went_into(client: TeiClient) -> None:
    embedded = await client.embed_timed(["one text", "another text"])
    assert embedded.timing is not None
    assert 0 <= embedded.timing.queue_s < 60
    assert 0 <= embedded.timing.inference_s < 60


@pytest.mark.own_server("tei")
async def test_the_next_key_is_used_once_the_server_refuses_the_first(server: Server) -> None:
    client = TeiClient(server.session, server.url, api_keys=["an old key", KEY])
    assert len(await client.embed(["one"])) == 1
    await asyncio.gather(*(client.embed(["two"]) for _ in range(4)))
    with pytest.raises(DependencyError, match="401"):
        await TeiClient(server.session, server.url, api_keys=["old", "older"]).embed(["one"])


async def test_a_redirect_is_an_error_and_nothing_follows_it() -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        raise web.HTTPTemporaryRedirect("/elsewhere")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with serving(app) as url, aiohttp.ClientSession() as session:
        client = TeiClient(session, url, api_keys=["a key"])
        for call in (client.info(), client.embed(["one"]), client.health()):
            with pytest.raises(DependencyError, match="HTTP 307"):
                await call
    assert asked == ["/info", "/embed", "/health"]
