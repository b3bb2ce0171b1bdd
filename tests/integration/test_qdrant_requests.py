"""What millstream sends to Qdrant: no request asks for a compressed answer, and a hybrid search
makes three.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from qdrant_client import AsyncQdrantClient

from cli.doctor.probes import see_qdrant
from indexer.fence import Candidate, Fence
from indexer.keyword import KeywordParameters
from indexer.qdrant.client import make_client
from indexer.qdrant.collection import ensure_collection, set_alias
from indexer.qdrant.store import PointStore
from indexer.scrubber import Scrubber
from indexer.search.keywords.keyword_index import KeywordIndex, QdrantKeywordIndex
from indexer.search.keywords.rank_bm25_index import RankBm25Index
from indexer.search.point_reader import PointReader
from indexer.search.service import SearchEngine, SearchOptions
from indexer.search.visibility import RegistryVisibility
from indexer.search.window import Sources
from ingest.http.qdrant_check import check_qdrant
from local.outside import check_outside
from shared.jobs.registry import Registration, Registry
from shared.jobs.targets import Targets
from shared.pipeline import ids
from shared.service.search_contract import SearchRequest
from shared.service.settings import QdrantSettings
from tests.support.documents import COLLECTION, DIMENSION, points
from tests.support.qdrant_process import running_qdrant
from tests.support.qdrant_recorder import QdrantRecorder, recording
from tests.support.search_fakes import FakeTei
from tests.support.stage_harness import TARGET, Servers

pytestmark = pytest.mark.asyncio(loop_scope="session")

URL = "https://heron.example/"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantSettings]:
    with running_qdrant(Path(tmp_path_factory.mktemp("qdrant")) / "data") as settings:
        yield settings


@pytest_asyncio.fixture(loop_scope="session")
async def recorder(server: QdrantSettings) -> AsyncIterator[tuple[QdrantRecorder, QdrantSettings]]:
    async with recording(server) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def client(
    recorder: tuple[QdrantRecorder, QdrantSettings],
) -> AsyncIterator[AsyncQdrantClient]:
    """A client through the recorder, with an empty collection and its alias."""
    client = make_client(recorder[1])
    await client.delete_collection(TARGET)
    await ensure_collection(
        client, TARGET, dimension=DIMENSION, generation="g", keyword=KeywordParameters()
    )
    await set_alias(client, COLLECTION, TARGET, {})
    yield client
    await client.close()


async def index(servers: Servers, client: AsyncQdrantClient, version: int, *texts: str) -> None:
    await Targets(servers.pool).ensure(COLLECTION)
    registration = Registration(
        document_id=ids.document_id(COLLECTION, URL), version=version, is_live=True, url=URL, content_hash=b"",
        fingerprint=b"", chunks=len(texts),
    )  # fmt: skip
    candidate = Candidate(registration=registration, points=points(URL, texts, version=version))
    await Fence(Registry(servers.pool), PointStore(client)).apply(TARGET, [candidate])


def engine_of(servers: Servers, client: AsyncQdrantClient, keyword: KeywordIndex) -> SearchEngine:
    sources = Sources(points=PointReader(client), keyword=keyword, embed_query=FakeTei().embed_for)
    return SearchEngine(
        sources, RegistryVisibility(servers.pool), SearchOptions(default_collection=COLLECTION)
    )


async def test_no_request_asks_for_a_compressed_answer(
    servers: Servers, client: AsyncQdrantClient, recorder: tuple[QdrantRecorder, QdrantSettings]
) -> None:
    seen, settings = recorder
    for version in (1, 2):
        await index(servers, client, version, "a heron rests", "and waits")
    in_memory = RankBm25Index(client, RegistryVisibility(servers.pool))
    for keyword in (QdrantKeywordIndex(PointReader(client)), in_memory):
        found = await engine_of(servers, client, keyword).search(SearchRequest(query="heron"))
        assert [result.text for result in found.results] == ["a heron rests"]
    await Scrubber(Registry(servers.pool), PointStore(client)).scrub(TARGET)
    targets = await Targets(servers.pool).all_live()
    async with aiohttp.ClientSession() as session:
        await check_qdrant(session, settings)()
        assert (await see_qdrant(session, settings, targets)).read_ms
    environ = {
        "WEBHOOK_QDRANT_URL": settings.qdrant_url,
        "WEBHOOK_QDRANT_API_KEY": str(settings.qdrant_api_key),
    }
    await check_outside("qdrant", environ)
    operations = {(request.method, request.path.rpartition("/")[2]) for request in seen.requests}
    assert {
        ("PUT", "points"),
        ("POST", "delete"),
        ("POST", "query"),
        ("POST", "points"),
        ("POST", "scroll"),
    } <= operations
    assert {("GET", "collections"), ("GET", "")} <= operations
    assert Counter(request.accept_encoding for request in seen.requests) == {
        "identity": len(seen.requests)
    }
    assert not any(request.content_encoding or request.is_chunked for request in seen.requests)


async def test_the_server_compresses_in_chunks_when_it_is_asked(
    client: AsyncQdrantClient, recorder: tuple[QdrantRecorder, QdrantSettings]
) -> None:
    seen, settings = recorder
    headers = {"api-key": str(settings.qdrant_api_key)}
    url = f"{settings.qdrant_url}/collections/{TARGET}"
    async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as answer:
        assert (await answer.json())["status"] == "ok"
    assert (seen.requests[-1].content_encoding, seen.requests[-1].is_chunked) == ("gzip", True)


async def test_a_hybrid_search_makes_three_requests(
    servers: Servers, client: AsyncQdrantClient, recorder: tuple[QdrantRecorder, QdrantSettings]
) -> None:
    seen, _ = recorder
    await index(servers, client, 1, "a heron rests")
    engine = engine_of(servers, client, QdrantKeywordIndex(PointReader(client)))
    seen.requests.clear()
    assert (await engine.search(SearchRequest(query="heron"))).total == 1
    assert Counter(request.path.rpartition("/")[2] for request in seen.requests) == {
        "query": 2,
        "points": 1,
    }
