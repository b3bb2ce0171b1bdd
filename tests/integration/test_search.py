"""POST /api/search over HTTP, against the embedded Qdrant server."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from indexer.keyword import KeywordParameters
from indexer.qdrant.client import make_client
from indexer.qdrant.collection import ensure_collection
from indexer.qdrant.store import PointStore
from indexer.search.routes import add_search_routes
from indexer.search.service import SearchEngine, SearchOptions
from shared.service.errors import DependencyError
from shared.service.http import problem_middleware
from tests.support.corpus import docstrings
from tests.support.documents import COLLECTION, DIMENSION, points
from tests.support.outside import own_name
from tests.support.qdrant_process import running_qdrant
from tests.support.search_fakes import FakeRegistry, FakeTei, sources_of

TARGET = own_name("docs_1")
TEXTS = docstrings()
URLS = [f"https://docs.example/{number}" for number in range(len(TEXTS))]
FRENCH: dict[str, Any] = {"language": "fr", "country": "FR", "is_mobile": True}  # every fifth page

Http = TestClient[web.Request, web.Application]


@pytest.fixture(scope="module")
def tei() -> FakeTei:
    return FakeTei()


@pytest.fixture(scope="module")
def registry() -> FakeRegistry:
    return FakeRegistry(TARGET, dict.fromkeys(URLS, 1))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running_qdrant(tmp_path_factory.mktemp("qdrant") / "data") as found:
        yield found


@pytest.fixture
async def http(settings: Any, registry: FakeRegistry, tei: FakeTei) -> AsyncIterator[Http]:
    registry.is_unavailable, tei.error = False, None
    client = make_client(settings)
    collection = await ensure_collection(
        client, TARGET, dimension=DIMENSION, generation="g", keyword=KeywordParameters()
    )
    if collection.is_new:
        found = [
            point
            for number, (url, text) in enumerate(zip(URLS, TEXTS, strict=True))
            for point in points(url, [text], **(FRENCH if number % 5 == 0 else {}))
        ]
        assert await PointStore(client).upsert(TARGET, found) == {}
    engine = SearchEngine(
        sources_of(client, tei), registry, SearchOptions(default_collection=COLLECTION)
    )
    app = web.Application(middlewares=[problem_middleware])
    add_search_routes(app, engine, is_authentic, lambda *_: None)
    async with TestClient(TestServer(app), headers={"Authorization": "Bearer right"}) as http:
        yield http
    await client.close()


def is_authentic(request: web.Request) -> bool:
    return request.headers.get("Authorization") == "Bearer right"


async def search(http: Http, **request: Any) -> dict[str, Any]:
    response = await http.post("/api/search", json=request)
    assert response.status == 200, await response.text()
    answer: dict[str, Any] = await response.json()
    return answer


async def test_an_answer_has_the_fields_of_the_contract(http: Http) -> None:
    answer = await search(http, query="acquire a lock", limit=3)
    assert set(answer) == {"results", "total", "query", "mode", "took_ms", "degraded"}
    assert (answer["query"], answer["mode"], answer["degraded"]) == (
        "acquire a lock",
        "hybrid",
        False,
    )
    assert 0 < answer["took_ms"] < 10_000
    assert len(answer["results"]) == 3
    assert set(answer["results"][0]) == {
        "id", "url", "title", "description", "text", "score", "chunk_index", "start", "end", "headings", "highlights",
        "metadata",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "parts"), [("hybrid", {"embedding", "dense", "keyword"}), ("keyword", {"keyword"})]
)
async def test_an_answer_says_what_it_waited_for(http: Http, mode: str, parts: set[str]) -> None:
    response = await http.post("/api/search", json={"query": "acquire a lock", "mode": mode})
    timed = dict(re.findall(r"(\w+);dur=([\d.]+)", response.headers["Server-Timing"]))
    assert set(timed) == parts | {"registry", "texts", "total"}
    assert all(0 <= float(ms) <= float(timed["total"]) for ms in timed.values())


async def test_the_words_of_the_query_are_found_and_marked(http: Http) -> None:
    answer = await search(http, query="acquiring locks", mode="bm25")
    assert answer["mode"] == "keyword"
    first = answer["results"][0]
    marked = {first["text"][start:end].lower() for start, end in first["highlights"]}
    assert marked
    assert all(re.match("acquir|lock", word) for word in marked)


async def test_the_same_text_is_the_nearest_by_meaning(http: Http) -> None:
    answer = await search(http, query=TEXTS[17], mode="semantic", limit=1)
    assert answer["results"][0]["text"] == TEXTS[17]
    assert answer["results"][0]["score"] == pytest.approx(1, abs=1e-3)


async def test_the_whole_window_can_be_paged_through(http: Http) -> None:
    pages = [
        await search(http, query="return the object", limit=50, offset=offset)
        for offset in range(0, 200, 50)
    ]
    found = [result["id"] for page in pages for result in page["results"]]
    assert len(found) == len(set(found)) == min(200, pages[0]["total"])
    scores = [result["score"] for page in pages for result in page["results"]]
    assert scores == sorted(scores, reverse=True)


async def test_a_filter_in_camel_case_narrows_the_search(http: Http) -> None:
    answer = await search(
        http, query="the event loop runs", filters={"urlPrefix": "https://docs.example/1"}
    )
    assert answer["total"] > 0
    assert all(result["url"].startswith("https://docs.example/1") for result in answer["results"])


@pytest.mark.parametrize("mode", ["hybrid", "semantic", "keyword"])
@pytest.mark.parametrize(
    ("filters", "remaining"),
    [
        ({"language": "fr"}, set(URLS[::5])),
        ({"country": "FR", "domain": "Docs.Example"}, set(URLS[::5])),
        ({"is_mobile": True, "indexed_after": "2024-05-01T11:59:59Z"}, set(URLS[::5])),
        ({"url_prefix": URLS[30], "language": "fr"}, {URLS[30], URLS[300], URLS[305]}),
        ({"url_prefix": URLS[30], "crawl_id": "crawl-1"}, {URLS[30], *URLS[300:310]}),
        ({"crawl_id": "crawl-2"}, set()),
        ({"domain": "docs"}, set()),
        ({"indexed_after": "2024-05-01T12:00:00Z"}, set()),
    ],
)
async def test_each_filter_keeps_what_it_says(
    http: Http, filters: dict[str, Any], remaining: set[str], mode: str
) -> None:
    answer = await search(
        http, query="return the value of the object", mode=mode, limit=100, filters=filters
    )
    found = {result["url"] for result in answer["results"]}
    assert found <= remaining
    assert bool(found) == bool(remaining)
    if mode == "semantic":  # every point has a distance
        assert len(found) == min(100, len(remaining))


async def test_a_query_that_matches_nothing_has_no_keyword_results(http: Http) -> None:
    answer = await search(http, query="xylophone zzyzx", mode="keyword")
    assert (answer["results"], answer["total"]) == ([], 0)


async def test_equal_searches_give_equal_pages(http: Http) -> None:
    first = await search(http, query="return the object", limit=100)
    assert (await search(http, query="return the object", limit=100))["results"] == first["results"]


async def test_a_missing_collection_is_empty(http: Http) -> None:
    answer = await search(http, query="loop", collection="unknown")
    assert (answer["results"], answer["total"]) == ([], 0)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("{", "truncated"),
        ("{}", "query"),
        ('{"query": "q", "limit": 500}', "`limit`"),
        ('{"query": " "}', "blank"),
    ],
)
async def test_a_bad_request_is_a_problem_with_a_clear_text(
    http: Http, body: str, named: str
) -> None:
    response = await http.post("/api/search", data=body, headers={"X-Request-ID": "r1"})
    problem = await response.json()
    assert (response.status, response.content_type) == (422, "application/problem+json")
    assert named in problem["detail"]
    assert problem["request_id"] == "r1"


async def test_credentials_are_asked_for_before_the_body_is_looked_at(http: Http) -> None:
    response = await http.post("/api/search", data="{", headers={"Authorization": "Bearer wrong"})
    assert response.status == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_without_tei_hybrid_is_degraded_and_semantic_unavailable(
    http: Http, tei: FakeTei
) -> None:
    tei.error = DependencyError("tei", "connection refused")
    answer = await search(http, query="acquire a lock")
    assert answer["degraded"]
    assert answer["results"]
    response = await http.post("/api/search", json={"query": "lock", "mode": "semantic"})
    assert response.status == 503
    assert "tei" in (await response.json())["detail"]


async def test_without_postgres_an_answer_is_degraded(http: Http, registry: FakeRegistry) -> None:
    await search(http, query="acquire a lock")
    registry.is_unavailable = True
    answer = await search(http, query="acquire a lock")
    assert answer["degraded"]
    assert answer["results"]
