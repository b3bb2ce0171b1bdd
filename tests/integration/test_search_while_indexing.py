"""Four clients search for a page that is indexed 200 times, past the real fence, on Postgres and
the embedded Qdrant.

Two of them by Qdrant's keyword index, two by the one in memory. The pipeline in front of the fence
does the same, fewer times, in test_visibility.py.
"""

import asyncio
import itertools
from collections.abc import Sequence

import pytest
import pytest_asyncio
from qdrant_client import AsyncQdrantClient

from indexer.fence import Candidate, Fence
from indexer.qdrant.store import PointStore
from indexer.search.keywords.keyword_index import KeywordIndex, QdrantKeywordIndex
from indexer.search.keywords.rank_bm25_index import RankBm25Index
from indexer.search.point_reader import PointReader
from indexer.search.service import SearchEngine, SearchOptions
from indexer.search.visibility import RegistryVisibility
from indexer.search.window import Sources
from shared.jobs.registry import Registration, Registry
from shared.jobs.targets import Targets
from shared.pipeline import ids
from shared.service.search_contract import Collapse, Mode, SearchFilters, SearchRequest
from tests.support.documents import COLLECTION, points
from tests.support.search_fakes import FakeTei
from tests.support.stage_harness import TARGET, Servers

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]

REVISIONS = 200
OTHERS = 30  # pages that stay as they are
URL = "https://walrus.example/"


class Indexer:
    """The last step of the pipeline: versions past the fence."""

    def __init__(self, servers: Servers, client: AsyncQdrantClient) -> None:
        self._fence = Fence(Registry(servers.pool), PointStore(client))
        self._versions = itertools.count(1)

    async def put(self, url: str, texts: Sequence[str]) -> None:
        """Index the page, or delete it if there are no texts."""
        version = next(self._versions)
        registration = Registration(
            document_id=ids.document_id(COLLECTION, url), version=version, is_live=bool(texts), url=url,
            content_hash=b"", fingerprint=b"", chunks=len(texts),
        )  # fmt: skip
        new = points(url, texts, version=version)
        await self._fence.apply(TARGET, [Candidate(registration=registration, points=new)])


class Searcher:
    """Asks for the page again and again, and keeps what was wrong with the answers."""

    def __init__(self, engine: SearchEngine, mode: Mode) -> None:
        self._engine = engine
        self._request = SearchRequest(
            query="the walrus rests", mode=mode, collapse=Collapse.CHUNK, limit=100,
            filters=SearchFilters(url_prefix=URL),
        )  # fmt: skip
        self.seen: set[str] = set()
        self.wrong: list[str] = []

    async def found(self) -> list[str]:
        answer = await self._engine.search(self._request)
        assert not answer.degraded
        return [result.text for result in answer.results]

    async def run(self, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            revisions = {text.split()[-1] for text in await self.found()}
            self.seen |= revisions
            if len(revisions) != 1:
                self.wrong.append(f"after {len(self.seen)}: {sorted(revisions)}")


def page(revision: int) -> list[str]:
    """One to three chunks, so that revisions leave chunks behind that the next one does not have."""
    return [
        f"In part {part} the walrus rests in revision{revision}" for part in range(revision % 3 + 1)
    ]


@pytest_asyncio.fixture(loop_scope="session")
async def indexer(servers: Servers, qdrant: AsyncQdrantClient) -> Indexer:
    """With pages in the collection that are always the same."""
    await Targets(servers.pool).ensure(COLLECTION)
    indexer = Indexer(servers, qdrant)
    for number in range(OTHERS):
        await indexer.put(f"https://others.example/{number}", [f"Another walrus, number {number}"])
    await indexer.put(URL, page(0))
    return indexer


@pytest.fixture
def searchers(servers: Servers, qdrant: AsyncQdrantClient) -> list[Searcher]:
    visibility = RegistryVisibility(servers.pool, answer_s=60)
    keyword: list[KeywordIndex] = [
        QdrantKeywordIndex(PointReader(qdrant)),
        RankBm25Index(qdrant, visibility),
    ]
    options = SearchOptions(default_collection=COLLECTION)
    sources = [
        Sources(points=PointReader(qdrant), keyword=index, embed_query=FakeTei().embed_for)
        for index in keyword
    ]
    return [
        Searcher(SearchEngine(source, visibility, options), mode)
        for source, mode in itertools.product(sources, (Mode.HYBRID, Mode.KEYWORD))
    ]


async def test_a_page_that_is_indexed_200_times_is_always_found_in_one_version(
    indexer: Indexer, searchers: list[Searcher]
) -> None:
    is_over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for searcher in searchers:
            group.create_task(searcher.run(is_over))
        for revision in range(1, REVISIONS + 1):
            await indexer.put(URL, page(revision))
        is_over.set()
    assert [searcher.wrong for searcher in searchers] == [[]] * len(searchers)
    assert all(len(searcher.seen) > REVISIONS // 10 for searcher in searchers), (
        "they searched meanwhile"
    )
    for searcher in searchers:
        assert sorted(await searcher.found()) == page(
            REVISIONS
        )  # of revision 199 nothing, which had fewer parts


async def test_a_page_that_was_deleted_is_not_found_by_anyone_until_it_comes_back(
    indexer: Indexer, searchers: list[Searcher]
) -> None:
    for revision in range(3):
        assert [sorted(await searcher.found()) for searcher in searchers] == [page(revision)] * len(
            searchers
        )
        await indexer.put(URL, [])
        assert [await searcher.found() for searcher in searchers] == [[]] * len(searchers)
        await indexer.put(URL, page(revision + 1))
