import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from indexer.keyword import KeywordEncoder, KeywordParameters
from indexer.qdrant.collection import ensure_collection
from indexer.qdrant.store import PointStore, StoredVersion
from indexer.search.keywords.keyword_index import KeywordQuestion
from indexer.search.keywords.rank_bm25_index import OVERLAP, RankBm25Index
from indexer.search.point_reader import PointReader
from indexer.search.service import SearchEngine, SearchOptions
from indexer.search.window import Sources
from shared.pipeline import ids
from shared.service.errors import DependencyError
from shared.service.search_contract import Mode, SearchFilters, SearchRequest
from tests.support.documents import COLLECTION, DIMENSION, points
from tests.support.qdrant_memory import MemoryQdrant
from tests.support.search_fakes import FakeTei

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")

TARGET = "docs_1"
URL = "https://a.example/x"
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


class Registry:
    """Changes by the time of the database, which the test sets."""

    def __init__(self) -> None:
        self.now = NOON
        self.changed: dict[str, tuple[dt.datetime, int | None]] = {}
        self.error: DependencyError | None = None

    def decide(self, url: str, version: int | None, at: dt.datetime) -> None:
        self.changed[ids.document_id(COLLECTION, url)] = (at, version)

    async def changes(
        self, target: str, since: dt.datetime
    ) -> tuple[dt.datetime, Mapping[str, int | None]]:
        if self.error is not None:
            raise self.error
        return self.now, {
            id_: version for id_, (at, version) in self.changed.items() if at >= since
        }

    async def target_of(self, collection: str) -> str:
        return TARGET

    async def live_versions(
        self, target: str, document_ids: Sequence[str]
    ) -> Mapping[str, int | None]:
        return {id_: self.changed[id_][1] for id_ in document_ids if id_ in self.changed}

    async def targets_in_use(self) -> Sequence[str]:
        return [TARGET]


@pytest.fixture
async def client() -> AsyncIterator[MemoryQdrant]:
    client = MemoryQdrant()
    await ensure_collection(
        client, TARGET, dimension=DIMENSION, generation="g", keyword=KeywordParameters()
    )
    yield client
    await client.close()


async def put(client: MemoryQdrant, texts: list[str], version: int) -> None:
    assert await PointStore(client).upsert(TARGET, points(URL, texts, version=version)) == {}


async def versions(index: RankBm25Index, query: str) -> list[int]:
    terms = KeywordEncoder(KeywordParameters()).encode_query(query)
    hits = await index.search(KeywordQuestion(target=TARGET, terms=terms, filters=SearchFilters()))
    return [hit.version for hit in hits]


async def test_a_change_that_is_committed_late_is_seen_within_the_overlap(
    client: MemoryQdrant,
) -> None:
    registry = Registry()
    index = RankBm25Index(client, registry)
    await put(client, ["fox"], 1)
    assert await versions(index, "fox") == []
    registry.decide(URL, 1, NOON - OVERLAP)
    assert await versions(index, "fox") == [1]


async def test_a_version_that_is_not_committed_yet_is_in_the_index_beside_the_live_one(
    client: MemoryQdrant,
) -> None:
    registry = Registry()
    index = RankBm25Index(client, registry)
    await put(client, ["fox"], 1)
    registry.decide(URL, 1, NOON)
    await put(client, ["fox", "fox again"], 2)
    # Search shows those of the version that is live then.
    assert sorted(await versions(index, "fox")) == [1, 2, 2]
    await PointStore(client).delete_version(
        TARGET, [StoredVersion(ids.document_id(COLLECTION, URL), 2)]
    )
    # The registry names no change, because version 2 was withdrawn.
    registry.now += dt.timedelta(hours=1)
    assert await versions(index, "fox") == [1]


async def test_a_version_that_was_read_before_its_commit_goes_when_the_page_is_deleted(
    client: MemoryQdrant,
) -> None:
    registry = Registry()
    index = RankBm25Index(client, registry)
    registry.decide(URL, 1, NOON)
    await put(client, ["fox"], 2)
    assert await versions(index, "fox") == [2]
    await PointStore(client).delete_up_to(
        TARGET, [StoredVersion(ids.document_id(COLLECTION, URL), 3)]
    )
    assert await versions(index, "fox") == [2]
    registry.decide(URL, None, NOON)
    assert await versions(index, "fox") == []


async def test_a_version_whose_points_are_gone_already_is_replaced_by_the_one_after_it(
    client: MemoryQdrant,
) -> None:
    registry = Registry()
    index = RankBm25Index(client, registry)
    await put(client, ["fox"], 1)
    registry.decide(URL, 1, NOON)
    assert await versions(index, "fox") == [1]
    # As it was just before version 3 was committed and deleted the points of version 2.
    registry.decide(URL, 2, NOON)
    await PointStore(client).delete_up_to(
        TARGET, [StoredVersion(ids.document_id(COLLECTION, URL), 2)]
    )
    assert await versions(index, "fox") == [1]  # search sees that this is old, and asks again
    await put(client, ["fox", "fox again"], 3)
    assert await versions(index, "fox") == [3, 3]
    registry.decide(URL, 3, NOON)
    assert await versions(index, "fox") == [3, 3]
    registry.decide(URL, None, NOON)
    assert await versions(index, "fox") == []


class Revisions:
    """A page that goes through the steps of the fence: write the next version, commit it, delete
    the one before.
    """

    def __init__(self, client: MemoryQdrant, registry: Registry) -> None:
        self._client = client
        self._registry = registry
        self._steps = 0

    async def advance(self, steps: int) -> None:
        for _ in range(steps):
            version, step = self._steps // 3 + 1, self._steps % 3
            if step == 0:
                await put(self._client, [f"fox {version}"], version)
            elif step == 1:
                self._registry.decide(URL, version, NOON)
            else:
                before = StoredVersion(ids.document_id(COLLECTION, URL), version - 1)
                await PointStore(self._client).delete_up_to(TARGET, [before])
            self._steps += 1


class BusyQdrant(MemoryQdrant):
    """Before each scroll somebody else writes."""

    write: Callable[[], Awaitable[None]] | None = None

    async def scroll(self, *args: Any, **options: Any) -> Any:
        if self.write:
            await self.write()
        return await super().scroll(*args, **options)


@pytest.mark.parametrize("steps", range(8))
@pytest.mark.parametrize("start", range(2, 5))
async def test_a_page_that_changes_at_each_look_is_found_by_every_search(
    start: int, steps: int
) -> None:
    client, registry = BusyQdrant(), Registry()
    await ensure_collection(
        client, TARGET, dimension=DIMENSION, generation="g", keyword=KeywordParameters()
    )
    revisions = Revisions(client, registry)
    await revisions.advance(start)
    client.write = partial(revisions.advance, steps)
    index = RankBm25Index(client, registry)
    sources = Sources(points=PointReader(client), keyword=index, embed_query=FakeTei().embed_for)
    engine = SearchEngine(sources, registry, SearchOptions(default_collection=COLLECTION))
    for _ in range(6):
        answer = await engine.search(SearchRequest(query="fox", mode=Mode.KEYWORD))
        assert len(answer.results) == 1
    await client.close()


async def test_only_what_changed_is_read_again(client: MemoryQdrant) -> None:
    registry = Registry()
    index = RankBm25Index(client, registry)
    await put(client, ["fox"], 1)
    registry.decide(URL, 1, NOON - dt.timedelta(days=1))
    assert await versions(index, "fox") == [1]
    await client.delete_collection(TARGET)  # reading it again would fail
    registry.now += dt.timedelta(hours=1)
    assert await versions(index, "fox") == [1]


async def test_without_postgres_the_last_state_answers_if_there_is_one(
    client: MemoryQdrant,
) -> None:
    registry = Registry()
    index = RankBm25Index(client, registry)
    await put(client, ["fox"], 1)
    registry.decide(URL, 1, NOON)
    registry.error = DependencyError("postgres", "away")
    with pytest.raises(DependencyError):
        await versions(index, "fox")
    registry.error = None
    assert await versions(index, "fox") == [1]
    registry.error = DependencyError("postgres", "away")
    assert await versions(index, "fox") == [1]


async def test_a_large_index_is_warned_about_once(
    client: MemoryQdrant,
) -> None:
    registry = Registry()
    index = RankBm25Index(client, registry, large=2)
    with capture_logs() as logs:
        for version, chunks in ((1, 2), (2, 3), (3, 4)):
            await put(client, ["fox"] * chunks, version)
            registry.decide(URL, version, NOON)
            assert await versions(index, "fox") == [version] * chunks
    assert [line["chunks"] for line in logs if line["event"] == "Keyword index is large"] == [3]
