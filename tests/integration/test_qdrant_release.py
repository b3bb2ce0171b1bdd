"""Qdrant of another release than the newest: what works there, what is refused, and what an upgrade
brings.
"""

import datetime as dt
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from qdrant_client import AsyncQdrantClient, models
from structlog.testing import capture_logs

from indexer.keyword import KeywordParameters
from indexer.qdrant.client import check_qdrant, handshake, make_client
from indexer.qdrant.collection import Collection, ensure_collection
from indexer.qdrant.store import PointStore
from indexer.search.keywords.rank_bm25_index import RankBm25Index
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


class Changes(FakeRegistry):
    """A registry that also tells rank-bm25 what changed: everything."""

    async def changes(
        self, target: str, since: dt.datetime
    ) -> tuple[dt.datetime, Mapping[str, int | None]]:
        return dt.datetime.now(dt.UTC), self.readings[0]

    async def targets_in_use(self) -> Sequence[str]:
        return [TARGET]


def rank_bm25_engine(client: AsyncQdrantClient) -> SearchEngine:
    registry = Changes(TARGET, dict.fromkeys(URLS, 1))
    sources = msgspec.structs.replace(
        sources_of(client, FakeTei()), keyword=RankBm25Index(client, registry)
    )
    return SearchEngine(sources, registry, SearchOptions(default_collection=COLLECTION))


def search_api(engine: SearchEngine) -> TestClient[web.Request, web.Application]:
    app = web.Application(middlewares=[problem_middleware])
    add_search_routes(app, engine, lambda _: True, lambda *_: None)
    return TestClient(TestServer(app))


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
    async with search_api(engine_of(client)) as http:
        for mode in Mode:
            body = {"query": "heron", "mode": mode, "filters": {"url_prefix": "https://b.example/"}}
            answer = await http.post("/api/search", json=body)
            assert answer.status == 422
            assert "`url_prefix` needs Qdrant 1.19 or later" in (await answer.json())["detail"]
        assert (await http.post("/api/search", json={"query": "heron"})).status == 200


async def test_any_other_filter_that_the_server_refuses_is_named_with_qdrants_reason(
    client: AsyncQdrantClient, recorder: QdrantRecorder
) -> None:
    await fill(client)
    recorder.refuses = '"key":"indexed_at"'
    async with search_api(engine_of(client)) as http:
        for mode in Mode:
            filters = {"domain": "b.example", "indexed_after": "2026-01-01T00:00:00Z"}
            body = {"query": "heron", "mode": mode, "filters": filters}
            answer = await http.post("/api/search", json=body)
            assert answer.status == 422
            detail = (await answer.json())["detail"]
            assert detail.startswith("Qdrant refuses a search with the filters `domain`, `indexed")
            assert "Format error in JSON body: data did not match any variant" in detail
        assert (await http.post("/api/search", json={"query": "heron"})).status == 200


@pytest.mark.parametrize("refused", ["/points/query", '"ids":[', "/points/scroll"])
async def test_a_search_without_filters_that_the_server_refuses_is_answered_with_503_and_why(
    client: AsyncQdrantClient, recorder: QdrantRecorder, refused: str
) -> None:
    await fill(client)
    engine = rank_bm25_engine(client) if "scroll" in refused else engine_of(client)
    recorder.refuses = refused
    async with search_api(engine) as http:
        for mode in Mode:
            answer = await http.post("/api/search", json={"query": "heron", "mode": mode})
            if "scroll" in refused and mode is Mode.SEMANTIC:
                assert answer.status == 200
                continue
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            assert (await answer.json())["detail"].startswith(
                "qdrant: it refuses a request of the search with 400: "
            )


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
