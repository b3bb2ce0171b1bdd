import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from qdrant_client import models

from indexer.keyword import KeywordParameters
from indexer.qdrant.client import RefusedError
from indexer.qdrant.collection import ensure_collection
from indexer.qdrant.store import PointStore
from indexer.search.keywords.keyword_index import KeywordQuestion, QdrantKeywordIndex
from indexer.search.point_reader import PointReader
from indexer.search.ranking import Hit
from indexer.search.service import MAX_ROUNDS, SearchEngine, SearchOptions
from indexer.search.window import Sources
from shared.pipeline import ids
from shared.service.errors import DependencyError, RejectedError
from shared.service.search_contract import (
    Collapse,
    Mode,
    SearchFilters,
    SearchRequest,
    SearchResponse,
)
from tests.support.documents import COLLECTION, DIMENSION, points
from tests.support.qdrant_memory import MemoryQdrant
from tests.support.search_fakes import FakeRegistry, FakeTei, sources_of

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")

TARGET = "docs_1"
A, B, C = "https://a.example/x", "https://b.example/y", "https://c.example/z"


@pytest.fixture
async def client() -> AsyncIterator[MemoryQdrant]:
    client = MemoryQdrant()
    await ensure_collection(
        client, TARGET, dimension=DIMENSION, generation="g", keyword=KeywordParameters()
    )
    yield client
    await client.close()


def engine(
    client: MemoryQdrant, registry: FakeRegistry, tei: FakeTei | None = None
) -> SearchEngine:
    options = SearchOptions(default_collection=COLLECTION, rrf_k=60)
    return SearchEngine(sources_of(client, tei or FakeTei()), registry, options)


async def put(client: MemoryQdrant, url: str, texts: Sequence[str], **more: Any) -> None:
    assert await PointStore(client).upsert(TARGET, points(url, texts, **more)) == {}


def texts_of(response: SearchResponse) -> list[str]:
    return [result.text for result in response.results]


async def test_a_result_has_all_that_the_contract_promises(client: MemoryQdrant) -> None:
    await put(
        client,
        A,
        ["nothing of it", "a fox in the box"],
        title="T",
        description="D",
        metadata={"k": [1]},
    )
    response = await engine(client, FakeRegistry(TARGET, {A: 1})).search(
        SearchRequest(query="foxes", mode=Mode.KEYWORD)
    )
    (result,) = response.results
    assert result.id == ids.point_id(ids.document_id(COLLECTION, A), 1, 1)
    assert (result.url, result.title, result.description, result.metadata) == (
        A,
        "T",
        "D",
        {"k": [1]},
    )
    assert (result.text, result.chunk_index, result.start, result.end) == (
        "a fox in the box",
        1,
        10,
        26,
    )
    assert (result.headings, result.highlights) == (("Heading",), ((2, 5),))
    assert result.score > 0
    assert (response.total, response.query, response.mode, response.degraded) == (
        1,
        "foxes",
        Mode.KEYWORD,
        False,
    )


async def test_each_side_alone_ranks_by_its_own_score_and_hybrid_by_both(
    client: MemoryQdrant,
) -> None:
    await put(client, A, ["silver fox silver fox"])
    await put(client, B, ["silver fox"])
    await put(client, C, ["unrelated words"])
    found = engine(client, FakeRegistry(TARGET, {A: 1, B: 1, C: 1}))
    semantic = await found.search(SearchRequest(query="silver fox", mode=Mode.SEMANTIC))
    assert semantic.results[0].text == "silver fox"
    assert semantic.results[0].score == pytest.approx(1)
    assert semantic.total == 3
    keyword = await found.search(SearchRequest(query="silver fox", mode=Mode.KEYWORD))
    assert texts_of(keyword) == ["silver fox silver fox", "silver fox"]
    hybrid = await found.search(SearchRequest(query="silver fox"))
    assert hybrid.results[0].text == "silver fox"
    assert hybrid.results[0].score == pytest.approx(1 / 61 + 1 / 62)


async def test_only_the_live_version_is_found(client: MemoryQdrant) -> None:
    for version in (1, 2, 3):
        await put(client, A, [f"fox of version {version}"], version=version)
    registry = FakeRegistry(TARGET, {A: 2})
    response = await engine(client, registry).search(
        SearchRequest(query="fox", collapse=Collapse.CHUNK)
    )
    assert texts_of(response) == ["fox of version 2"]
    assert (response.total, registry.times_read) == (1, 1)


async def test_deleted_and_unknown_documents_are_dropped_at_once(client: MemoryQdrant) -> None:
    await put(client, A, ["fox"])
    await put(client, B, ["fox"])
    registry = FakeRegistry(TARGET, {A: None})
    response = await engine(client, registry).search(SearchRequest(query="fox"))
    assert (response.results, response.total, registry.times_read) == ((), 0, 1)


async def test_a_document_that_changes_during_the_search_is_found_in_its_new_version(
    client: MemoryQdrant,
) -> None:
    await put(client, A, ["an old fox"], version=1)
    registry, tei = FakeRegistry(TARGET, {A: 2}), FakeTei()

    async def publish() -> None:
        await put(client, A, ["a new fox"], version=2)

    registry.before_answer = publish
    response = await engine(client, registry, tei).search(SearchRequest(query="fox"))
    assert texts_of(response) == ["a new fox"]
    assert registry.times_read == 2
    assert len(tei.asked) == 1  # embedding is the dear part


async def test_points_that_vanish_after_ranking_are_asked_for_again(client: MemoryQdrant) -> None:
    await put(client, A, ["an old fox"], version=1)
    await put(client, A, ["a new fox"], version=2)
    registry = FakeRegistry(TARGET, {A: 1}, {A: 2})
    old = ids.point_id(ids.document_id(COLLECTION, A), 1, 0)

    async def clean_up() -> None:
        await client.delete(TARGET, [old])

    registry.before_answer = clean_up
    response = await engine(client, registry).search(SearchRequest(query="fox"))
    assert texts_of(response) == ["a new fox"]


async def test_asking_again_ends_some_time_and_keeps_the_others(client: MemoryQdrant) -> None:
    await put(client, A, ["a stale fox"], version=1)
    await put(client, B, ["a settled fox"], version=1)
    registry = FakeRegistry(TARGET, *({A: version, B: 1} for version in range(2, 20)))
    response = await engine(client, registry).search(SearchRequest(query="fox"))
    assert texts_of(response) == ["a settled fox"]
    assert registry.times_read == MAX_ROUNDS
    assert not response.degraded


async def test_a_version_that_was_left_behind_is_asked_for_again_only_once(
    client: MemoryQdrant,
) -> None:
    await put(client, A, ["a left fox"], version=1)
    await put(client, A, ["a badger"], version=2)
    registry = FakeRegistry(TARGET, {A: 2})
    response = await engine(client, registry).search(SearchRequest(query="fox", mode=Mode.KEYWORD))
    assert (response.results, registry.times_read) == ((), 2)


async def test_a_document_that_only_one_side_saw_change_is_asked_for_again(
    client: MemoryQdrant,
) -> None:
    """The keyword side is read while the query is embedded: long before the dense side."""
    await put(client, A, ["an old fox"], version=1)
    tei = FakeTei()

    async def embed_late(_target: str, text: str) -> list[float]:
        await keyword.read.wait()
        await put(client, A, ["a new fox"], version=2)
        await client.delete(TARGET, [ids.point_id(ids.document_id(COLLECTION, A), 1, 0)])
        return await tei.embed_query(text, None)

    keyword = Noticing(client)
    sources = Sources(points=PointReader(client), keyword=keyword, embed_query=embed_late)
    search = SearchEngine(
        sources, FakeRegistry(TARGET, {A: 2}), SearchOptions(default_collection=COLLECTION)
    )
    response = await search.search(SearchRequest(query="fox"))
    assert texts_of(response) == ["a new fox"]
    assert response.results[0].score == pytest.approx(2 / 61)


class Noticing(QdrantKeywordIndex):
    """Says when it has been read."""

    def __init__(self, client: MemoryQdrant) -> None:
        super().__init__(PointReader(client))
        self.read = asyncio.Event()

    async def search(self, question: KeywordQuestion) -> Sequence[Hit]:
        found = await super().search(question)
        self.read.set()
        return found


async def test_without_postgres_the_newest_version_answers_and_says_so(
    client: MemoryQdrant,
) -> None:
    await put(client, A, ["an old fox"], version=1)
    await put(client, A, ["a new fox"], version=2)
    registry = FakeRegistry(TARGET, {A: 1})
    search = engine(client, registry)
    assert texts_of(await search.search(SearchRequest(query="fox"))) == ["an old fox"]
    registry.is_unavailable = True
    response = await search.search(SearchRequest(query="fox"))
    assert texts_of(response) == ["a new fox"]
    assert response.degraded


async def test_without_postgres_a_collection_never_seen_before_cannot_be_searched(
    client: MemoryQdrant,
) -> None:
    registry = FakeRegistry(TARGET)
    registry.is_unavailable = True
    with pytest.raises(DependencyError, match="postgres"):
        await engine(client, registry).search(SearchRequest(query="fox"))


@pytest.mark.parametrize(
    "error", [DependencyError("tei", "away"), RejectedError("tei_rejected", "too long")]
)
async def test_without_an_embedding_hybrid_answers_by_keywords_and_semantic_fails(
    client: MemoryQdrant, error: Exception
) -> None:
    await put(client, A, ["fox"])
    await put(client, B, ["river"])
    search = engine(client, FakeRegistry(TARGET, {A: 1, B: 1}), FakeTei(error))
    response = await search.search(SearchRequest(query="fox"))
    assert texts_of(response) == ["fox"]
    assert response.degraded
    with pytest.raises(type(error)):
        await search.search(SearchRequest(query="fox", mode=Mode.SEMANTIC))
    assert not (await search.search(SearchRequest(query="fox", mode=Mode.KEYWORD))).degraded


async def test_a_slow_tei_is_not_waited_for(client: MemoryQdrant) -> None:
    async def never(_target: str, _text: str) -> list[float]:
        await asyncio.Event().wait()
        return []

    await put(client, A, ["fox"])
    reader = PointReader(client)
    sources = Sources(
        points=reader, keyword=QdrantKeywordIndex(reader), embed_query=never, embed_timeout_s=0.01
    )
    options = SearchOptions(default_collection=COLLECTION)
    response = await SearchEngine(sources, FakeRegistry(TARGET, {A: 1}), options).search(
        SearchRequest(query="fox")
    )
    assert (texts_of(response), response.degraded) == (["fox"], True)


async def test_an_error_of_qdrant_is_never_taken_for_one_of_tei(client: MemoryQdrant) -> None:
    class Refusing(MemoryQdrant):
        async def query_points(  # type: ignore[override]
            self, collection_name: str, **kwargs: Any
        ) -> models.QueryResponse:
            raise (
                RefusedError(400, "no")
                if kwargs["using"] == "dense"
                else DependencyError("qdrant", "away")
            )

    await put(client, A, ["fox"])
    broken = Refusing()
    with pytest.raises((RefusedError, DependencyError), match="qdrant"):
        await engine(broken, FakeRegistry(TARGET, {A: 1})).search(SearchRequest(query="fox"))
    await broken.close()


async def test_pages_do_not_overlap_and_miss_nothing(client: MemoryQdrant) -> None:
    urls = [f"https://a.example/{number}" for number in range(40)]
    for url in urls:
        await put(client, url, ["fox", "fox again"])
    search = engine(client, FakeRegistry(TARGET, dict.fromkeys(urls, 1)))
    pages = [
        await search.search(SearchRequest(query="fox", limit=7, offset=offset))
        for offset in range(0, 42, 7)
    ]
    found = [result.url for page in pages for result in page.results]
    assert sorted(found) == sorted(urls)
    assert {page.total for page in pages} == {40}
    beyond = await search.search(SearchRequest(query="fox", limit=7, offset=49))
    assert (beyond.results, beyond.total) == ((), 40)


async def test_a_result_is_a_document_unless_chunks_are_asked_for(client: MemoryQdrant) -> None:
    await put(client, A, ["fox", "fox fox", "fox den"])
    search = engine(client, FakeRegistry(TARGET, {A: 1}))
    best = await search.search(SearchRequest(query="fox", mode=Mode.KEYWORD))
    assert (texts_of(best), best.total) == (["fox fox"], 1)
    chunks = await search.search(
        SearchRequest(query="fox", mode=Mode.KEYWORD, collapse=Collapse.CHUNK)
    )
    assert (chunks.results[0], chunks.total) == (best.results[0], 3)


async def test_a_query_of_stop_words_has_no_keyword_side(client: MemoryQdrant) -> None:
    await put(client, A, ["to be or not to be"])
    search = engine(client, FakeRegistry(TARGET, {A: 1}))
    assert (await search.search(SearchRequest(query="to be", mode=Mode.KEYWORD))).results == ()
    assert texts_of(await search.search(SearchRequest(query="to be"))) == ["to be or not to be"]


async def test_filters_hold_for_both_sides(client: MemoryQdrant) -> None:
    await put(client, A, ["fox"])
    await put(client, B, ["fox"])
    search = engine(client, FakeRegistry(TARGET, {A: 1, B: 1}))
    filters = SearchFilters(url_prefix="https://b.")
    for mode in Mode:
        response = await search.search(SearchRequest(query="fox", mode=mode, filters=filters))
        assert [result.url for result in response.results] == [B]


@pytest.mark.parametrize(
    ("collection", "target"), [("other", TARGET), (None, None), (None, "lost_1")]
)
async def test_a_collection_that_does_not_exist_is_empty(
    client: MemoryQdrant, collection: str | None, target: str | None
) -> None:
    response = await engine(client, FakeRegistry(target)).search(
        SearchRequest(query="fox", collection=collection)
    )
    assert (response.results, response.total, response.degraded) == ((), 0, False)
