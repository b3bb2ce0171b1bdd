"""One suite for both keyword engines, on the embedded Qdrant; each is an oracle for the ranking of
the other.
"""

import datetime as dt
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from qdrant_client.models import PointStruct

from indexer.keyword import KeywordEncoder, KeywordParameters
from indexer.qdrant.client import make_client
from indexer.qdrant.collection import ensure_collection
from indexer.qdrant.points import points_of
from indexer.qdrant.store import PointStore
from indexer.search.keywords.keyword_index import KeywordIndex, KeywordQuestion, QdrantKeywordIndex
from indexer.search.keywords.rank_bm25_index import RankBm25Index
from indexer.search.point_reader import PointReader
from indexer.search.ranking import WINDOW, Hit, live_hits
from shared.pipeline import ids
from shared.pipeline.messages import Page
from shared.service.errors import DependencyError
from shared.service.search_contract import SearchFilters
from shared.service.settings import QdrantSettings
from tests.support.corpus import docstrings
from tests.support.documents import COLLECTION, DIMENSION, INDEXED_AT, embedded, ref_of
from tests.support.keyword_oracle import Oracle
from tests.support.outside import own_name
from tests.support.qdrant_process import running_qdrant

K1, B = 1.2, 0.6
TEXTS = docstrings()[:250]
ORACLE = Oracle(TEXTS, k1=K1, b=B)
A, B_URL, C = "https://a.example/x", "https://b.example/y", "https://c.example/z"

_target_numbers = itertools.count()


class Registry:
    """The registry of one target, as both search and the in-process engine read it."""

    def __init__(self) -> None:
        self.live: dict[str, int | None] = {}
        self.is_unavailable = False

    async def changes(
        self, target: str, since: dt.datetime
    ) -> tuple[dt.datetime, Mapping[str, int | None]]:
        if self.is_unavailable:
            raise DependencyError("postgres", "away")
        return dt.datetime.now(dt.UTC), dict(self.live)

    async def targets_in_use(self) -> Sequence[str]:
        return []


class Corpus:
    """A target with documents and one engine to search it."""

    def __init__(self, engine: str, settings: QdrantSettings) -> None:
        self.target = own_name(f"docs_{next(_target_numbers)}")
        self.client = make_client(settings)
        self.registry = Registry()
        self.unwritten: list[PointStruct] = []
        self.parameters = KeywordParameters(k1=K1, b=B, avg_len=ORACLE.avgdl)
        self.index: KeywordIndex = (
            QdrantKeywordIndex(PointReader(self.client))
            if engine == "qdrant"
            else RankBm25Index(self.client, self.registry, k1=K1, b=B)
        )

    def put(
        self, url: str, texts: Sequence[str], *, version: int = 1, prefix: str = "", **page: Any
    ) -> None:
        """Make this the live version; its points are written before the next search."""
        found = points_of(
            ref_of(url, version, crawl_id=f"crawl-{version}"),
            embedded(texts, page=Page(**page), prefix=prefix),
            domain=url.split("/")[2],
            collection=COLLECTION,
            indexed_at=INDEXED_AT,
            encoder=KeywordEncoder(self.parameters),
        )
        self.registry.live[ids.document_id(COLLECTION, url)] = version
        self.unwritten += found

    async def search(self, query: str, **filters: Any) -> list[Hit]:
        """The hits that search would show."""
        points, self.unwritten = self.unwritten, []
        assert await PointStore(self.client).upsert(self.target, points) == {}
        terms = KeywordEncoder(self.parameters).encode_query(query)
        question = KeywordQuestion(
            target=self.target, terms=terms, filters=SearchFilters(**filters)
        )
        return live_hits(await self.index.search(question), self.registry.live)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantSettings]:
    with running_qdrant(Path(tmp_path_factory.mktemp("qdrant")) / "data") as found:
        yield found


@pytest.fixture(params=["qdrant", "rank-bm25"])
async def corpus(request: pytest.FixtureRequest, settings: QdrantSettings) -> AsyncIterator[Corpus]:
    corpus = Corpus(request.param, settings)
    await ensure_collection(
        corpus.client, corpus.target, dimension=DIMENSION, generation="g", keyword=corpus.parameters
    )
    yield corpus
    await corpus.client.delete_collection(corpus.target)
    await corpus.client.close()


def found_urls(hits: Sequence[Hit], urls: Sequence[str]) -> list[str]:
    url_of = {ids.document_id(COLLECTION, url): url for url in urls}
    return [url_of[hit.document_id] for hit in hits]


async def test_scores_and_order_are_those_of_brute_force_bm25(corpus: Corpus) -> None:
    urls = [f"https://a.example/{number}" for number in range(len(TEXTS))]
    for url, text in zip(urls, TEXTS, strict=True):
        corpus.put(url, [text])
    for query in (
        "close the event loop",
        "thread lock acquire thread",
        "header of an HTTP response",
    ):
        hits = await corpus.search(query)
        expected = dict(zip(urls, ORACLE.scores(query), strict=True))
        matching = sorted((score for score in expected.values() if score > 0), reverse=True)[
            :WINDOW
        ]
        assert [hit.score for hit in hits] == pytest.approx(matching, rel=1e-4)
        assert [expected[url] for url in found_urls(hits, urls)] == pytest.approx(
            matching, rel=1e-4
        )


async def test_a_hit_says_where_its_chunk_is(corpus: Corpus) -> None:
    corpus.put(A, ["nothing of it", "a fox in the box"], version=7)
    (hit,) = await corpus.search("foxes")
    document_id = ids.document_id(COLLECTION, A)
    assert (hit.id, hit.document_id, hit.version, hit.chunk_index) == (
        ids.point_id(document_id, 7, 1), document_id, 7, 1,
    )  # fmt: skip


async def test_what_no_chunk_has_is_not_found(corpus: Corpus) -> None:
    assert await corpus.search("fox") == []
    corpus.put(A, ["a fox"])
    assert await corpus.search("zzyzx") == []


async def test_a_term_that_every_chunk_has_is_found(corpus: Corpus) -> None:
    corpus.put(A, ["a fox", "the fox"])
    assert len(await corpus.search("fox")) == 2


async def test_the_words_of_title_and_headings_are_found(corpus: Corpus) -> None:
    corpus.put(A, ["nothing of it"], prefix="Foxes > Dens\n\n")
    assert found_urls(await corpus.search("fox den"), [A]) == [A]


async def test_a_new_version_is_found_and_the_one_before_is_not(corpus: Corpus) -> None:
    corpus.put(A, ["an old fox", "a fox", "fox"], version=1)
    corpus.put(B_URL, ["a fox"], version=2)
    assert len(await corpus.search("fox")) == 4
    corpus.put(A, ["a new badger"], version=3)
    assert found_urls(await corpus.search("fox"), [B_URL]) == [B_URL]
    assert [hit.version for hit in await corpus.search("badger")] == [3]


async def test_a_deleted_document_is_not_found_and_can_come_back(corpus: Corpus) -> None:
    corpus.put(A, ["a fox"], version=1)
    corpus.put(B_URL, ["a fox"], version=2)
    assert len(await corpus.search("fox")) == 2
    corpus.registry.live[ids.document_id(COLLECTION, A)] = None
    assert found_urls(await corpus.search("fox"), [B_URL]) == [B_URL]
    corpus.put(A, ["a fox"], version=4)
    assert sorted(found_urls(await corpus.search("fox"), [A, B_URL])) == [A, B_URL]


async def test_filters_hold(corpus: Corpus) -> None:
    corpus.put(A, ["fox"], version=1, language="de", country="DE", is_mobile=True)
    corpus.put(B_URL, ["fox"], version=2, is_mobile=False)
    corpus.put(C, ["fox"], version=3)
    an_hour_before = INDEXED_AT - dt.timedelta(hours=1)
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"domain": "A.example"}, [A]),
        ({"language": "de"}, [A]),
        ({"country": "DE"}, [A]),
        ({"is_mobile": False}, [B_URL]),
        ({"url_prefix": "https://b."}, [B_URL]),
        ({"crawl_id": "crawl-3"}, [C]),
        ({"indexed_after": an_hour_before}, [A, B_URL, C]),
        ({"indexed_after": an_hour_before.replace(tzinfo=None)}, [A, B_URL, C]),
        ({"indexed_after": INDEXED_AT}, []),
        ({"language": "de", "domain": "b.example"}, []),
    ]
    for filters, remaining in cases:
        found = found_urls(await corpus.search("fox", **filters), [A, B_URL, C])
        assert sorted(found) == remaining, filters


async def test_no_more_than_a_window_is_found_and_it_is_the_best(corpus: Corpus) -> None:
    corpus.put(A, ["fox " + "river " * (number % 7) for number in range(WINDOW + 60)])
    hits = await corpus.search("fox")
    assert len(hits) == WINDOW
    assert max(hit.chunk_index % 7 for hit in hits) == 5
