"""What millstream asks of Qdrant, the same for the client's own in-memory engine and the embedded
server.
"""

import datetime as dt
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient, models

from indexer.keyword import KeywordEncoder, KeywordParameters
from indexer.qdrant.client import make_client
from indexer.qdrant.collection import SPARSE, Collection, ensure_collection
from indexer.qdrant.store import PointStore, StoredDocument, StoredPoint, StoredVersion
from indexer.search.filters import qdrant_filter
from shared.pipeline import ids
from shared.service.search_contract import SearchFilters
from shared.service.settings import QdrantSettings
from tests.support.corpus import docstrings
from tests.support.documents import COLLECTION, DIMENSION, points, vector_of
from tests.support.keyword_oracle import Oracle
from tests.support.outside import own_name
from tests.support.qdrant_memory import MemoryQdrant
from tests.support.qdrant_process import running_qdrant

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")

NAME = own_name("docs_1")
A, B = "https://a.example/x", "https://b.example/y"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantSettings]:
    data_dir: Path = tmp_path_factory.mktemp("qdrant") / "data"
    with running_qdrant(data_dir) as settings:
        yield settings


@pytest.fixture(params=["memory", "server"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[AsyncQdrantClient]:
    if request.param == "memory":
        found: AsyncQdrantClient = MemoryQdrant()
    else:
        found = make_client(request.getfixturevalue("server"))
    yield found
    await found.close()


@pytest.fixture
async def store(client: AsyncQdrantClient) -> PointStore:
    await ensure(client, NAME)
    # Tests share it: making one takes 0.3 s.
    await client.delete(NAME, models.FilterSelector(filter=models.Filter()))
    return PointStore(client)


async def ensure(client: AsyncQdrantClient, name: str, avg_len: float = 100.0) -> Collection:
    keyword = KeywordParameters(avg_len=avg_len)
    return await ensure_collection(
        client, name, dimension=DIMENSION, generation="g1", keyword=keyword
    )


async def stored(client: AsyncQdrantClient) -> set[tuple[str, int, int]]:
    """(url, version, chunk index) of every point."""
    records, _ = await client.scroll(NAME, limit=10_000)
    payloads = [record.payload or {} for record in records]
    return {(p["url"], p["version"], p["chunk_index"]) for p in payloads}


def of(url: str, version: int, chunks: int) -> set[tuple[str, int, int]]:
    return {(url, version, chunk) for chunk in range(chunks)}


async def fill(store: PointStore) -> None:
    """Three versions of A and of B, of 2, 3 and 4 chunks."""
    for url, version in itertools.product((A, B), (1, 2, 3)):
        assert (
            await store.upsert(NAME, points(url, ["text"] * (version + 1), version=version)) == {}
        )


async def test_an_upsert_can_be_read_at_once_and_repeated(
    client: AsyncQdrantClient, store: PointStore
) -> None:
    found = points(A, ["some text"] * 300, version=2)
    await store.upsert(NAME, found)
    assert await stored(client) == of(A, 2, 300)
    await store.upsert(NAME, found)
    assert (await client.count(NAME)).count == 300


async def test_payload_and_vectors_come_back_as_they_were_written(
    client: AsyncQdrantClient, store: PointStore
) -> None:
    (point,) = points(
        A, ["some text"], title="T", metadata={"none": None, "deep": {"list": [1, "é"]}}
    )
    await store.upsert(NAME, [point])
    (record,) = await client.retrieve(NAME, [point.id], with_vectors=True)
    assert record.payload == {**(point.payload or {}), "headings": ["Heading"]}
    assert isinstance(record.vector, dict)
    assert isinstance(point.vector, dict)
    written, read = point.vector[SPARSE], record.vector[SPARSE]
    assert isinstance(written, models.SparseVector)
    assert isinstance(read, models.SparseVector)
    by_term = dict(zip(read.indices, read.values, strict=True))
    # As float32.
    assert by_term == pytest.approx(
        dict(zip(written.indices, written.values, strict=True)), rel=1e-6
    )


async def test_deleting_older_points_keeps_the_version_and_what_is_newer(
    client: AsyncQdrantClient, store: PointStore
) -> None:
    await fill(store)
    a, b = ids.document_id(COLLECTION, A), ids.document_id(COLLECTION, B)
    await store.delete_older(NAME, [StoredDocument(a, 2, 3), StoredDocument(b, 3, 1)])
    assert await stored(client) == of(A, 2, 3) | of(A, 3, 4) | of(B, 3, 1)


async def test_deleting_a_version_touches_no_other(
    client: AsyncQdrantClient, store: PointStore
) -> None:
    await fill(store)
    await store.delete_version(NAME, [StoredVersion(ids.document_id(COLLECTION, A), 2)])
    everything = {
        key for url in (A, B) for version in (1, 2, 3) for key in of(url, version, version + 1)
    }
    assert await stored(client) == everything - of(A, 2, 3)


async def test_deleting_up_to_a_version_keeps_newer_ones(
    client: AsyncQdrantClient, store: PointStore
) -> None:
    await fill(store)
    a, b = ids.document_id(COLLECTION, A), ids.document_id(COLLECTION, B)
    await store.delete_up_to(NAME, [StoredVersion(a, 2), StoredVersion(b, 3)])
    assert await stored(client) == of(A, 3, 4)


async def test_deleting_nothing_deletes_nothing(
    client: AsyncQdrantClient, store: PointStore
) -> None:
    await fill(store)
    await store.delete_older(NAME, [])
    await store.delete_version(NAME, [])
    await store.delete_up_to(NAME, [])
    assert (await client.count(NAME)).count == 18


async def test_more_documents_than_fit_one_filter_are_all_deleted(
    client: AsyncQdrantClient, store: PointStore
) -> None:
    urls = [f"https://a.example/{number}" for number in range(150)]
    await store.upsert(NAME, [point for url in urls for point in points(url, ["text"])])
    await store.delete_up_to(
        NAME, [StoredVersion(ids.document_id(COLLECTION, url), 1) for url in urls[1:]]
    )
    assert await stored(client) == of(urls[0], 1, 1)


async def test_keyword_scores_are_those_of_brute_force_bm25(client: AsyncQdrantClient) -> None:
    texts = docstrings()
    oracle = Oracle(texts, k1=1.5, b=0.75)
    collection = await ensure(client, own_name("bm25_1"), oracle.avgdl)
    encoder = KeywordEncoder(collection.keyword)
    await PointStore(client).upsert(collection.name, points(A, texts, encoder=encoder))
    for query in (
        "close the event loop",
        "acquire a lock, then release the lock",
        "HTTP response header",
    ):
        found = await client.query_points(
            collection.name,
            query=encoder.encode_query(query),
            using=SPARSE,
            limit=10,
            with_payload=["chunk_index"],
        )
        scores = oracle.scores(query)
        best = sorted(scores, reverse=True)[:10]
        assert [hit.score for hit in found.points] == pytest.approx(best, rel=1e-4)
        for hit in found.points:
            assert hit.score == pytest.approx(scores[(hit.payload or {})["chunk_index"]], rel=1e-4)


@pytest.mark.parametrize(
    ("filters", "urls"),
    [
        (SearchFilters(domain="A.example"), {A}),
        (SearchFilters(url_prefix="https://b.example/"), {B}),
        (SearchFilters(url_prefix="https://"), {A, B}),
        (SearchFilters(language="de"), {B}),
        (SearchFilters(country="AT"), {A}),
        (SearchFilters(is_mobile=True), {A}),
        (SearchFilters(is_mobile=False), {B}),
        (SearchFilters(crawl_id="crawl-1"), {A, B}),
        (SearchFilters(crawl_id="crawl-2"), set()),
        (SearchFilters(language="de", country="AT"), set()),
    ],
)
async def test_filters_select_by_payload(
    client: AsyncQdrantClient, store: PointStore, filters: SearchFilters, urls: set[str]
) -> None:
    await store.upsert(NAME, points(A, ["text"], language="en", country="AT", is_mobile=True))
    await store.upsert(NAME, points(B, ["text"], language="de", country="DE", is_mobile=False))
    found = await client.query_points(
        NAME,
        query=vector_of("text"),
        using="dense",
        query_filter=qdrant_filter(filters),
        with_payload=True,
    )
    assert {(hit.payload or {})["url"] for hit in found.points} == urls


async def test_a_time_filter_excludes_the_very_moment(
    client: AsyncQdrantClient, store: PointStore
) -> None:
    await store.upsert(NAME, points(A, ["text"]))  # at 2024-05-01 12:00 UTC
    for moment, expected in (
        ("2024-05-01T11:59:59", 1),
        ("2024-05-01T13:59:59+02:00", 1),
        ("2024-05-01T12:00:00Z", 0),
    ):
        condition = qdrant_filter(SearchFilters(indexed_after=dt.datetime.fromisoformat(moment)))
        assert (await client.count(NAME, count_filter=condition)).count == expected


async def test_pages_show_every_point_once_and_points_can_be_deleted_one_by_one(
    client: AsyncQdrantClient, store: PointStore
) -> None:
    await fill(store)
    seen: list[StoredPoint] = []
    after = None
    while True:
        page = await store.page(NAME, after, 4)
        seen += page.points
        if (after := page.after) is None:
            break
    both = {ids.document_id(COLLECTION, url) for url in (A, B)}
    assert Counter((p.document_id, p.version) for p in seen) == {
        (d, v): v + 1 for d in both for v in (1, 2, 3)
    }
    await store.delete_points(NAME, [point.id for point in seen if point.version < 3])
    assert await stored(client) == of(A, 3, 4) | of(B, 3, 4)
