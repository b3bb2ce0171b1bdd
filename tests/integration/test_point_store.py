"""What goes wrong between the indexer and Qdrant: races, lost stores, bad points, an unavailable
server.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient, models

from indexer.keyword import KeywordParameters
from indexer.qdrant.client import MissingCollectionError, make_client, read_release
from indexer.qdrant.collection import (
    PAYLOAD_INDEXES,
    Collection,
    DimensionMismatchError,
    GenerationMismatchError,
    ensure_collection,
)
from indexer.qdrant.release import PREFIX
from indexer.qdrant.store import PointStore, StoredDocument, StoredVersion
from shared.pipeline import ids
from shared.service.errors import ConfigurationError, DependencyError
from shared.service.settings import QdrantSettings
from tests.support.documents import COLLECTION, DIMENSION, points
from tests.support.outside import own_name
from tests.support.qdrant_process import running_qdrant

NAME = own_name("docs_1")
A, B, C = "https://a.example/x", "https://b.example/y", "https://c.example/z"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantSettings]:
    data_dir: Path = tmp_path_factory.mktemp("qdrant") / "data"
    with running_qdrant(data_dir) as settings:
        yield settings


@pytest.fixture
async def client(server: QdrantSettings) -> AsyncIterator[AsyncQdrantClient]:
    found = make_client(server)
    yield found
    await found.delete_collection(NAME)
    await found.close()


async def ensure(client: AsyncQdrantClient, name: str = NAME, **changed: Any) -> Collection:
    usual: dict[str, Any] = {
        "dimension": DIMENSION,
        "generation": "g1",
        "keyword": KeywordParameters(avg_len=90.0),
    }
    return await ensure_collection(client, name, **(usual | changed))


async def stored_urls(client: AsyncQdrantClient) -> list[str]:
    records, _ = await client.scroll(NAME, limit=10_000)
    return sorted((record.payload or {})["url"] for record in records)


def with_dense(point: models.PointStruct, dense: list[float]) -> models.PointStruct:
    assert isinstance(point.vector, dict)
    return point.model_copy(update={"vector": {**point.vector, "dense": dense}})


async def test_a_new_collection_has_both_vectors_all_indexes_and_its_metadata(
    client: AsyncQdrantClient,
) -> None:
    collection = await ensure(client)
    assert collection == Collection(
        name=NAME,
        dimension=DIMENSION,
        generation="g1",
        keyword=KeywordParameters(avg_len=90.0),
        is_new=True,
    )
    info = await client.get_collection(NAME)
    assert isinstance(info.config.params.vectors, dict)
    assert info.config.params.vectors["dense"].distance is models.Distance.COSINE
    assert info.config.params.sparse_vectors is not None
    assert info.config.params.sparse_vectors["bm25"].modifier is models.Modifier.IDF
    assert set(info.payload_schema) == set(PAYLOAD_INDEXES)
    params = info.payload_schema["url"].params  # with defaults that depend on the server
    assert isinstance(params, models.KeywordIndexParams)
    assert bool(params.prefix) == ((await read_release(client) or PREFIX) >= PREFIX)


async def test_ten_indexers_that_start_together_make_one_collection(server: QdrantSettings) -> None:
    clients = [make_client(server) for _ in range(10)]
    try:
        collections = await asyncio.gather(*(ensure(client) for client in clients))
        assert [c.is_new for c in collections].count(True) == 1
        assert set((await clients[0].get_collection(NAME)).payload_schema) == set(PAYLOAD_INDEXES)
        await clients[0].delete_collection(NAME)
    finally:
        await asyncio.gather(*(client.close() for client in clients))


async def test_a_known_collection_keeps_the_keyword_parameters_it_was_filled_with(
    client: AsyncQdrantClient,
) -> None:
    await ensure(client)
    again = await ensure(client, keyword=KeywordParameters(k1=2.0, avg_len=300.0))
    assert (again.keyword, again.is_new) == (KeywordParameters(avg_len=90.0), False)


async def test_an_index_that_a_crash_left_out_is_made_later(client: AsyncQdrantClient) -> None:
    await ensure(client)
    await client.delete_payload_index(NAME, "crawl_id")
    await ensure(client)
    assert "crawl_id" in (await client.get_collection(NAME)).payload_schema


async def test_another_dimension_is_refused_with_a_remedy(client: AsyncQdrantClient) -> None:
    await ensure(client)
    with pytest.raises(DimensionMismatchError, match="WEBHOOK_TEI_URL") as caught:
        await ensure(client, dimension=384)
    assert (caught.value.stored, caught.value.wanted) == (DIMENSION, 384)
    assert isinstance(caught.value, ConfigurationError)


async def test_another_generation_is_a_lost_store(client: AsyncQdrantClient) -> None:
    await ensure(client)
    with pytest.raises(GenerationMismatchError, match="g1") as caught:
        await ensure(client, generation="g2")
    assert (caught.value.stored, caught.value.wanted) == ("g1", "g2")


async def test_a_collection_of_somebody_else_is_left_alone(client: AsyncQdrantClient) -> None:
    await client.create_collection(
        NAME, vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT)
    )
    with pytest.raises(GenerationMismatchError, match="not made by millstream") as caught:
        await ensure(client)
    assert caught.value.stored is None
    assert (await client.get_collection(NAME)).payload_schema == {}


@pytest.mark.parametrize("dense", [[1.0] * (DIMENSION + 1), [math.nan] * DIMENSION])
async def test_a_bad_point_fails_its_document_alone(
    client: AsyncQdrantClient, dense: list[float]
) -> None:
    await ensure(client)
    good_a, bad, good_c = (points(url, ["text"] * 100) for url in (A, B, C))
    bad[70] = with_dense(bad[70], dense)
    rejected = await PointStore(client).upsert(NAME, [*good_a, *bad, *good_c])
    assert list(rejected) == [ids.document_id(COLLECTION, B)]
    assert rejected[ids.document_id(COLLECTION, B)].code == "refused_by_qdrant"
    urls = await stored_urls(client)
    assert (urls.count(A), urls.count(C)) == (100, 100)


async def test_a_document_of_bad_points_alone_costs_few_requests(client: AsyncQdrantClient) -> None:
    await ensure(client)
    requests = []

    async def count(request: object) -> None:
        requests.append(request)

    client.http.client._async_client.event_hooks["request"].append(count)
    bad = [with_dense(point, [1.0]) for point in points(B, ["text"] * 128)]
    assert set(await PointStore(client).upsert(NAME, bad)) == {ids.document_id(COLLECTION, B)}
    assert len(requests) == 8  # 128, 64, ... 1; then the document is known


async def test_a_lost_collection_stops_a_write_but_not_a_delete(client: AsyncQdrantClient) -> None:
    store = PointStore(client)
    with pytest.raises(MissingCollectionError):
        await store.upsert(NAME, points(A, ["text"] * 300))
    document = ids.document_id(COLLECTION, A)
    await store.delete_older(NAME, [StoredDocument(document, 2, 1)])
    await store.delete_version(NAME, [StoredVersion(document, 2)])
    await store.delete_up_to(NAME, [StoredVersion(document, 2)])


async def test_a_wrong_key_is_no_fault_of_the_documents(server: QdrantSettings) -> None:
    client = make_client(QdrantSettings(qdrant_url=server.qdrant_url))
    try:
        with pytest.raises(DependencyError, match="401"):
            await PointStore(client).upsert(NAME, points(A, ["text"]))
    finally:
        await client.close()


@pytest.mark.own_server("qdrant")
async def test_a_server_that_restarts_is_unavailable_and_then_continues(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with running_qdrant(data_dir) as settings:
        client = make_client(settings)
        await ensure(client)
        await PointStore(client).upsert(NAME, points(A, ["text"]))
    with pytest.raises(DependencyError):
        await PointStore(client).upsert(NAME, points(B, ["text"] * 300))
    with pytest.raises(DependencyError):
        await ensure(client)
    with running_qdrant(data_dir, int(settings.qdrant_url.rsplit(":", 1)[1])):
        assert not (await ensure(client)).is_new
        await PointStore(client).upsert(NAME, points(B, ["text"]))
        assert await stored_urls(client) == [A, B]
        await client.close()
