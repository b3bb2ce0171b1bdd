"""Qdrant of another release than the newest: what works there, what is refused, and what an upgrade
brings.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from qdrant_client import AsyncQdrantClient, models
from structlog.testing import capture_logs

from indexer.keyword import KeywordParameters
from indexer.qdrant.client import check_qdrant, handshake, make_client
from indexer.qdrant.collection import Collection, ensure_collection
from indexer.qdrant.store import PointStore
from indexer.search.routes import add_search_routes
from indexer.search.service import SearchEngine, SearchOptions
from shared.service.errors import ConfigurationError, DependencyError
from shared.service.http import problem_middleware
from shared.service.search_contract import Mode, SearchFilters, SearchRequest
from shared.service.settings import QdrantSettings
from tests.support.documents import COLLECTION, DIMENSION, points
from tests.support.qdrant_process import running_qdrant
from tests.support.qdrant_recorder import QdrantRecorder, recording
from tests.support.search_fakes import FakeRegistry, FakeTei, sources_of

TARGET = f"{COLLECTION}_1"
URLS = [
    "https://b.example/guide/1",
    "https://b.example/guide/2",
    "https://b.example/other",
    # has the prefix, but does not begin with it
    "https://a.example/login?next=https://b.example/guide/1",
    "http://b.example/guide/1",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantSettings]:
    with running_qdrant(Path(tmp_path_factory.mktemp("qdrant")) / "data") as settings:
        yield settings


@pytest.fixture
async def proxy(server: QdrantSettings) -> AsyncIterator[tuple[QdrantRecorder, QdrantSettings]]:
    async with recording(server) as (recorder, settings):
        recorder.release = "1.16.3"
        yield recorder, settings


@pytest.fixture
def recorder(proxy: tuple[QdrantRecorder, QdrantSettings]) -> QdrantRecorder:
    """The server that calls itself 1.16.3."""
    return proxy[0]


@pytest.fixture
async def client(proxy: tuple[QdrantRecorder, QdrantSettings]) -> AsyncIterator[AsyncQdrantClient]:
    found = make_client(proxy[1])
    yield found
    await found.close()


async def fill(client: AsyncQdrantClient) -> None:
    await client.delete_collection(TARGET)
    await ensure(client)
    found = [point for url in URLS for point in points(url, ["a heron"])]
    assert await PointStore(client).upsert(TARGET, found) == {}


async def ensure(client: AsyncQdrantClient) -> Collection:
    return await ensure_collection(
        client, TARGET, dimension=DIMENSION, generation="g", keyword=KeywordParameters()
    )


def engine_of(client: AsyncQdrantClient) -> SearchEngine:
    registry = FakeRegistry(TARGET, dict.fromkeys(URLS, 1))
    return SearchEngine(
        sources_of(client, FakeTei()), registry, SearchOptions(default_collection=COLLECTION)
    )


async def found_urls(engine: SearchEngine, prefix: str, mode: Mode) -> list[str]:
    request = SearchRequest(query="heron", mode=mode, filters=SearchFilters(url_prefix=prefix))
    return sorted(result.url for result in (await engine.search(request)).results)


async def has_prefix_index(client: AsyncQdrantClient) -> bool:
    params = (await client.get_collection(TARGET)).payload_schema["url"].params
    return isinstance(params, models.KeywordIndexParams) and bool(params.prefix)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("https://b.example/guide/", URLS[:2]),
        ("https://b.example", URLS[:3]),
        ("http", sorted(URLS)),
        ("https://B.example/", []),
        ("b.example", []),
    ],
)
async def test_a_url_prefix_works_before_1_19(
    client: AsyncQdrantClient, prefix: str, expected: list[str], mode: Mode
) -> None:
    await fill(client)
    assert await found_urls(engine_of(client), prefix, mode) == expected


async def test_after_an_upgrade_prefixes_are_found_by_an_index_without_a_reindex(
    client: AsyncQdrantClient, recorder: QdrantRecorder
) -> None:
    await fill(client)
    assert not await has_prefix_index(client)
    recorder.release = None
    assert await found_urls(engine_of(client), "https://b.example/guide/", Mode.HYBRID) == URLS[:2]
    assert not (await ensure(client)).is_new
    assert await has_prefix_index(client)
    assert await found_urls(engine_of(client), "https://b.example/guide/", Mode.HYBRID) == URLS[:2]


async def test_a_server_that_went_back_to_an_older_release_is_noticed(
    client: AsyncQdrantClient, recorder: QdrantRecorder
) -> None:
    await fill(client)
    engine = engine_of(client)
    recorder.release = None
    assert await found_urls(engine, "https://b.example/guide/", Mode.KEYWORD) == URLS[:2]
    recorder.release = "1.16.3"
    assert await found_urls(engine, "https://b.example/guide/", Mode.KEYWORD) == URLS[:2]


async def test_a_filter_that_the_server_refuses_is_answered_with_422_and_the_release_it_needs(
    client: AsyncQdrantClient, recorder: QdrantRecorder
) -> None:
    await fill(client)
    recorder.refuses_scans = True
    app = web.Application(middlewares=[problem_middleware])
    add_search_routes(app, engine_of(client), lambda _: True, lambda *_: None)
    async with TestClient(TestServer(app)) as http:
        for mode in Mode:
            body = {"query": "heron", "mode": mode, "filters": {"url_prefix": "https://b.example/"}}
            answer = await http.post("/api/search", json=body)
            assert answer.status == 422
            assert "`url_prefix` needs Qdrant 1.19 or later" in (await answer.json())["detail"]
        assert (await http.post("/api/search", json={"query": "heron"})).status == 200


async def test_a_release_that_is_too_old_is_refused_at_the_start_and_later(
    client: AsyncQdrantClient, recorder: QdrantRecorder
) -> None:
    recorder.release = "1.15.5"
    with pytest.raises(
        ConfigurationError, match=r"Qdrant 1\.15\.5 is too old: upgrade it to 1\.16 or later"
    ):
        await handshake(client)
    for check in (check_qdrant(client)(), ensure(client)):
        with pytest.raises(DependencyError, match="too old"):
            await check


@pytest.mark.parametrize(
    ("release", "warnings"), [("1.16.3", 1), ("1.18.3", 1), ("1.19.0", 0), ("dev", 0)]
)
async def test_a_supported_release_that_is_old_is_warned_about(
    client: AsyncQdrantClient, recorder: QdrantRecorder, release: str, warnings: int
) -> None:
    recorder.release = release
    with capture_logs() as logs:
        await handshake(client)
    assert [line["version"] for line in logs if line["event"] == "Qdrant release is old"] == [
        release
    ] * warnings


async def test_a_server_that_does_not_answer_does_not_keep_a_process_from_starting(
    unused_tcp_port: int,
) -> None:
    client = make_client(QdrantSettings(qdrant_url=f"http://127.0.0.1:{unused_tcp_port}"))
    with capture_logs() as logs:
        await handshake(client)
    await client.close()
    assert [line["event"] for line in logs] == ["Qdrant not reached at the start"]
