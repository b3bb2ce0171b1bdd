import datetime as dt
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
from structlog.testing import capture_logs

from indexer.keyword import KeywordEncoder, KeywordParameters
from indexer.qdrant.collection import ensure_collection
from indexer.qdrant.store import PointStore
from indexer.search import rank_bm25_index
from indexer.search.contract import SearchFilters
from indexer.search.keyword_index import KeywordQuestion
from indexer.search.rank_bm25_index import OVERLAP, RankBm25Index
from shared.pipeline import ids
from shared.service.errors import DependencyError
from tests.support.documents import DIMENSION, points
from tests.support.qdrant_memory import MemoryQdrant

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
        self.changed[ids.document_id("docs", url)] = (at, version)

    async def changes(self, target: str, since: dt.datetime) -> tuple[dt.datetime, Mapping[str, int | None]]:
        if self.error is not None:
            raise self.error
        return self.now, {id_: version for id_, (at, version) in self.changed.items() if at >= since}

    async def targets_in_use(self) -> Sequence[str]:
        return [TARGET]


@pytest.fixture
async def client() -> AsyncIterator[MemoryQdrant]:
    client = MemoryQdrant()
    await ensure_collection(client, TARGET, dimension=DIMENSION, generation="g", keyword=KeywordParameters())
    yield client
    await client.close()


async def put(client: MemoryQdrant, texts: list[str], version: int) -> None:
    assert await PointStore(client).upsert(TARGET, points(URL, texts, version=version)) == {}


async def versions(index: RankBm25Index, query: str) -> list[int]:
    terms = KeywordEncoder(KeywordParameters()).encode_query(query)
    hits = await index.search(KeywordQuestion(target=TARGET, terms=terms, filters=SearchFilters()))
    return [hit.version for hit in hits]


async def test_a_change_that_is_committed_late_is_seen_within_the_overlap(client: MemoryQdrant) -> None:
    registry = Registry()
    index = RankBm25Index(client, registry)
    await put(client, ["fox"], 1)
    assert await versions(index, "fox") == []
    registry.decide(URL, 1, NOON - OVERLAP)
    assert await versions(index, "fox") == [1]


async def test_a_version_whose_points_are_gone_already_is_waited_for_with_the_one_before(client: MemoryQdrant) -> None:
    registry = Registry()
    index = RankBm25Index(client, registry)
    await put(client, ["fox"], 1)
    registry.decide(URL, 1, NOON)
    assert await versions(index, "fox") == [1]
    registry.decide(URL, 2, NOON)  # it was, but the next one is stored and has taken its points away
    await put(client, ["fox", "fox again"], 3)
    assert await versions(index, "fox") == [1]  # search sees that this is old, and asks again
    registry.decide(URL, 3, NOON)
    assert await versions(index, "fox") == [3, 3]
    registry.decide(URL, None, NOON)
    assert await versions(index, "fox") == []


async def test_only_what_changed_is_read_again(client: MemoryQdrant) -> None:
    registry = Registry()
    index = RankBm25Index(client, registry)
    await put(client, ["fox"], 1)
    registry.decide(URL, 1, NOON - dt.timedelta(days=1))
    assert await versions(index, "fox") == [1]
    await client.delete_collection(TARGET)  # reading it again would fail
    registry.now += dt.timedelta(hours=1)
    assert await versions(index, "fox") == [1]


async def test_without_postgres_the_last_state_answers_if_there_is_one(client: MemoryQdrant) -> None:
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


async def test_a_large_index_is_warned_about_once(client: MemoryQdrant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_bm25_index, "LARGE", 2)
    registry = Registry()
    index = RankBm25Index(client, registry)
    with capture_logs() as logs:
        for version, chunks in ((1, 2), (2, 3), (3, 4)):
            await put(client, ["fox"] * chunks, version)
            registry.decide(URL, version, NOON)
            assert await versions(index, "fox") == [version] * chunks
    assert [line["chunks"] for line in logs if line["event"] == "Keyword index is large"] == [3]
