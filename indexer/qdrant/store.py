"""The only place that writes points to Qdrant. The fence and the scrubber decide what may be
written.

Every write waits until it can be searched, and every write may be repeated.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Self

import msgspec
from qdrant_client import AsyncQdrantClient
from qdrant_client.models import (
    Condition,
    FieldCondition,
    Filter,
    FilterSelector,
    MatchAny,
    MatchValue,
    PointIdsList,
    PointStruct,
    Range,
)

from indexer.qdrant.client import MissingCollectionError, RefusedError, qdrant_errors
from shared.pipeline.fair_queue import FairSlots
from shared.pipeline.lanes import RESERVED_REQUESTS, Lane
from shared.service.errors import RejectedError

_UPSERT_POINTS = 128  # 64-256 are equally fast; a batch of 1,024 dimensions is 3 MB of JSON
_REQUESTS_IN_FLIGHT = 3  # beside those that a lane has reserved
_DELETE_DOCUMENTS = 64  # conditions in one filter

_Slot = Callable[[], AbstractAsyncContextManager[None]]


class StoredVersion(msgspec.Struct, frozen=True):
    """Points of one version of a document."""

    document_id: str
    version: int


class StoredDocument(msgspec.Struct, frozen=True):
    """All points that a document is to have: `version` with chunks 0 to `chunks` - 1."""

    document_id: str
    version: int
    chunks: int


class StoredPoint(msgspec.Struct, frozen=True):
    """A point, as far as the registry decides about it."""

    id: Any
    document_id: str
    version: int


class StoredPage(msgspec.Struct, frozen=True):
    """Some points in the order of their ids; `after` is where the next page begins, None at the
    end.
    """

    points: Sequence[StoredPoint]
    after: Any


class PointStore:
    """Writes to the collections of one Qdrant, for one lane. One instance per process bounds the
    requests in flight.

    Every method raises DependencyError when Qdrant is unavailable; what was sent may still be
    applied later.
    """

    def __init__(
        self, client: AsyncQdrantClient, slots: FairSlots | None = None, lane: Lane = Lane.NORMAL
    ) -> None:
        self._client = client
        self._slots = slots or FairSlots(_REQUESTS_IN_FLIGHT, RESERVED_REQUESTS)
        self._slot = partial(self._slots.hold, lane)

    def of(self, lane: Lane) -> Self:
        """The same store as work of another lane sees it: the bound is one for all."""
        return type(self)(self._client, self._slots, lane)

    async def upsert(
        self, collection: str, points: Sequence[PointStruct]
    ) -> dict[str, RejectedError]:
        """Write points, in any order; returns why Qdrant refused a document, by document id.

        Points that are not of a refused document are all written. Of a refused one any part may be:
        delete its version. Raises MissingCollectionError if the collection is gone.
        """
        upsert = _Upsert(self._client, collection, self._slot)
        batches = [
            points[start : start + _UPSERT_POINTS]
            for start in range(0, len(points), _UPSERT_POINTS)
        ]
        # Not a TaskGroup: on Python 3.11 an error in it wins over a cancellation, and work would go
        # on after its lease.
        endings = await asyncio.gather(
            *(upsert.send(batch) for batch in batches), return_exceptions=True
        )
        for ending in endings:
            if isinstance(ending, BaseException):
                raise ending
        return upsert.rejected

    async def delete_older(self, collection: str, documents: Sequence[StoredDocument]) -> None:
        """Delete what `documents` overtook: points of earlier versions, and surplus chunks of this
        one.

        (Chunks beyond the last are left by a first try of the same version that was split
        otherwise.)
        """
        await self._delete(collection, [_older(document) for document in documents])

    async def delete_version(self, collection: str, versions: Sequence[StoredVersion]) -> None:
        """Delete the points of exactly these versions."""
        filters = [
            Filter(must=[_is_document(v.document_id), _is_version(v.version)]) for v in versions
        ]
        await self._delete(collection, filters)

    async def delete_up_to(self, collection: str, versions: Sequence[StoredVersion]) -> None:
        """Delete the points of these versions and of all before them."""
        filters = [
            Filter(must=[_is_document(v.document_id), _versions(Range(lte=v.version))])
            for v in versions
        ]
        await self._delete(collection, filters)

    async def page(self, collection: str, after: Any, limit: int) -> StoredPage:
        """The next points of all that are stored, from the first one with `after` None; no vectors,
        no texts.
        """
        fields = ["document_id", "version"]
        try:
            with qdrant_errors():
                found, next_id = await self._client.scroll(
                    collection, limit=limit, offset=after, with_payload=fields, with_vectors=False
                )
        except MissingCollectionError:
            return StoredPage([], None)
        return StoredPage([StoredPoint(r.id, **r.payload) for r in found if r.payload], next_id)

    async def count_versions(self, collection: str, versions: Sequence[int]) -> Mapping[int, int]:
        """Return how many points each of these versions has; a version without points is left out.

        Raises MissingCollectionError if the collection is gone.
        """
        is_wanted = FieldCondition(key="version", match=MatchAny(any=list(versions)))
        with qdrant_errors():
            found = await self._client.facet(
                collection, "version", limit=len(versions), exact=True,
                facet_filter=Filter(must=[is_wanted]),
            )  # fmt: skip
        return {int(hit.value): hit.count for hit in found.hits}

    async def delete_points(self, collection: str, ids: Sequence[Any]) -> None:
        """Delete the points with these ids."""
        await self._delete_selected(collection, PointIdsList(points=list(ids)))

    async def _delete(self, collection: str, filters: Sequence[Filter]) -> None:
        for start in range(0, len(filters), _DELETE_DOCUMENTS):
            any_of: list[Condition] = [*filters[start : start + _DELETE_DOCUMENTS]]
            await self._delete_selected(collection, FilterSelector(filter=Filter(should=any_of)))

    async def _delete_selected(
        self, collection: str, selector: FilterSelector | PointIdsList
    ) -> None:
        try:
            async with self._slot():
                with qdrant_errors():
                    await self._client.delete(collection, selector, wait=True)
        except MissingCollectionError:
            return  # nothing is stored, so nothing is left


class _Upsert:
    """One call of `PointStore.upsert`: its batches share the refused documents."""

    def __init__(self, client: AsyncQdrantClient, collection: str, slot: _Slot) -> None:
        self._client = client
        self._collection = collection
        self._slot = slot
        self.rejected: dict[str, RejectedError] = {}

    async def send(self, points: Sequence[PointStruct]) -> None:
        """Write one batch; a refused one in halves, down to the point that Qdrant does not take."""
        points = [point for point in points if _document_of(point) not in self.rejected]
        if not points:
            return
        try:
            async with self._slot():
                with qdrant_errors():
                    await self._client.upsert(self._collection, points, wait=True)
        except RefusedError as error:
            if len(points) == 1:
                self.rejected[_document_of(points[0])] = RejectedError(
                    "refused_by_qdrant", str(error), "qdrant"
                )
                return
            for half in _halves(points):
                await self.send(half)


def _halves(points: Sequence[PointStruct]) -> Iterable[Sequence[PointStruct]]:
    middle = len(points) // 2
    return points[:middle], points[middle:]


def _document_of(point: PointStruct) -> str:
    return str((point.payload or {})["document_id"])


def _is_document(document_id: str) -> FieldCondition:
    return FieldCondition(key="document_id", match=MatchValue(value=document_id))


def _is_version(version: int) -> FieldCondition:
    return FieldCondition(key="version", match=MatchValue(value=version))


def _versions(range_: Range) -> FieldCondition:
    return FieldCondition(key="version", range=range_)


def _older(document: StoredDocument) -> Filter:
    surplus = Filter(
        must=[
            _is_version(document.version),
            FieldCondition(key="chunk_index", range=Range(gte=document.chunks)),
        ]
    )
    return Filter(
        must=[_is_document(document.document_id)],
        should=[_versions(Range(lt=document.version)), surplus],
    )
