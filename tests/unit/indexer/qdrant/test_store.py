"""The store and the fence on a Qdrant that writes the good points of a batch it refuses, as real
servers may do.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from indexer.fence import Candidate, Fence
from indexer.keyword import KeywordParameters
from indexer.qdrant.collection import ensure_collection
from indexer.qdrant.store import PointStore
from shared.jobs.registry import Decided, Registration
from shared.pipeline import ids
from shared.pipeline.outcomes import ItemState
from shared.service.errors import RejectedError
from tests.support.documents import DIMENSION, points
from tests.support.qdrant_memory import MemoryQdrant

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")

TARGET = "docs_1"
GOOD, BAD = "https://good.example/", "https://bad.example/"


class HalfWriting(MemoryQdrant):
    """Refuses a batch with a point of the wrong dimension, and writes the others."""

    async def upsert(  # type: ignore[override]
        self, collection_name: str, points: Any, **options: Any
    ) -> models.UpdateResult:
        good = [point for point in points if len(point.vector["dense"]) == DIMENSION]
        if good:
            await super().upsert(collection_name, good, **options)
        if len(good) < len(points):
            raise UnexpectedResponse(400, "Bad Request", b"Vector dimension error", httpx.Headers())
        return models.UpdateResult(status=models.UpdateStatus.COMPLETED)


class Registry:
    """Decides as the one in Postgres, for versions that come in order."""

    def __init__(self) -> None:
        self.committed: dict[str, Decided] = {}

    async def decided(self, target: str, document_ids: Sequence[str]) -> dict[str, Decided]:
        return {id_: self.committed[id_] for id_ in document_ids if id_ in self.committed}

    async def commit(self, target: str, registrations: Sequence[Registration]) -> set[str]:
        self.committed |= {r.document_id: Decided(r.version, r.version) for r in registrations}
        return {r.document_id for r in registrations}


@pytest.fixture
async def client() -> AsyncIterator[HalfWriting]:
    client = HalfWriting()
    await ensure_collection(
        client, TARGET, dimension=DIMENSION, generation="g", keyword=KeywordParameters()
    )
    yield client
    await client.close()


def candidate(url: str, version: int, chunks: int, *, is_bad: bool = False) -> Candidate:
    found = points(url, ["text"] * chunks, version=version)
    if is_bad:
        assert isinstance(found[-1].vector, dict)
        found[-1].vector["dense"] = [1.0]
    registration = Registration(
        document_id=ids.document_id("docs", url), version=version, is_live=True, url=url
    )
    return Candidate(registration=registration, points=found)


async def stored(client: HalfWriting) -> list[tuple[str, int]]:
    records, _ = await client.scroll(TARGET, limit=1000)
    return sorted(
        {((record.payload or {})["url"], (record.payload or {})["version"]) for record in records}
    )


async def test_a_refused_document_leaves_no_points_and_the_version_before_it_stays(
    client: HalfWriting,
) -> None:
    fence = Fence(Registry(), PointStore(client))
    assert await fence.apply(TARGET, [candidate(BAD, 1, 3)]) == [ItemState.INDEXED]
    good, bad = await fence.apply(
        TARGET, [candidate(GOOD, 2, 90), candidate(BAD, 3, 90, is_bad=True)]
    )
    assert good is ItemState.INDEXED
    assert isinstance(bad, RejectedError)
    assert await stored(client) == [(BAD, 1), (GOOD, 2)]
