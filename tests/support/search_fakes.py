"""Stand-ins for what search needs beside Qdrant: the registry in Postgres, and TEI."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from qdrant_client import AsyncQdrantClient

from indexer.search.keywords.keyword_index import QdrantKeywordIndex
from indexer.search.point_reader import PointReader
from indexer.search.window import Sources
from shared.pipeline import ids
from shared.service.errors import DependencyError
from tests.support.documents import COLLECTION, vector_of


class FakeRegistry:
    """A registry with one content for each reading; the last content stays."""

    def __init__(self, target: str | None, *readings: Mapping[str, int | None]) -> None:
        self.target = target
        self.readings = [
            {ids.document_id(COLLECTION, url): v for url, v in reading.items()}
            for reading in readings
        ]
        self.times_read = 0
        self.is_unavailable = False
        self.before_answer: Callable[[], Awaitable[object]] | None = None

    async def target_of(self, collection: str) -> str | None:
        if self.is_unavailable:
            raise DependencyError("postgres", "away")
        return self.target if collection == COLLECTION else None

    async def live_versions(
        self, target: str, document_ids: Sequence[str]
    ) -> Mapping[str, int | None]:
        assert target == self.target
        assert len(set(document_ids)) == len(document_ids)
        self.times_read += 1
        if self.is_unavailable:
            raise DependencyError("postgres", "away")
        if self.before_answer is not None:
            await self.before_answer()
        reading = (
            self.readings[min(self.times_read, len(self.readings)) - 1] if self.readings else {}
        )
        return {id_: reading[id_] for id_ in document_ids if id_ in reading}


class FakeTei:
    """Embeds as the documents were embedded, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[str] = []

    async def embed_for(self, _target: str, text: str) -> list[float]:
        return await self.embed_query(text, None)

    async def embed_query(self, text: str, _model: str | None) -> list[float]:
        self.asked.append(text)
        if self.error is not None:
            raise self.error
        return vector_of(text)


def sources_of(client: AsyncQdrantClient, tei: FakeTei) -> Sources:
    """Both sides from the client, with Qdrant's keyword index."""
    points = PointReader(client)
    return Sources(
        points=points,
        keyword=QdrantKeywordIndex(points),
        embed_query=tei.embed_for,
        embed_timeout_s=0.05,
    )
