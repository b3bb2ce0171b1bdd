"""What a search reads from Qdrant: the best hits of one side, and the texts of a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from qdrant_client import AsyncQdrantClient
from qdrant_client.models import ScoredPoint, SparseVector

from indexer.qdrant.client import RefusedError, qdrant_errors, read_release, search_errors
from indexer.qdrant.release import PREFIX, Release
from indexer.search.filters import qdrant_filter
from indexer.search.ranking import WINDOW, Hit
from shared.service.errors import RejectedError
from shared.service.search_contract import SearchFilters

RANKED_BY = ["document_id", "version", "chunk_index"]  # texts are read for one page only

Payload = Mapping[str, Any]

_NO_FILTERS = SearchFilters()


class PointReader:
    """Reads points for searches. Every method raises DependencyError if Qdrant is unavailable."""

    def __init__(self, client: AsyncQdrantClient) -> None:
        self._client = client
        self._release: Release | None = None

    async def hits(
        self, target: str, using: str, query: Sequence[float] | SparseVector, filters: SearchFilters
    ) -> list[Hit]:
        """The 200 points nearest to `query` by the vector named `using`, of any version of their
        document.

        Raises MissingCollectionError, and RejectedError for filters that Qdrant refuses.
        """
        prefix = filters.url_prefix or ""
        is_scanned = bool(prefix) and not await self._serves_prefixes()
        try:
            with search_errors() if filters == _NO_FILTERS else qdrant_errors():
                found = await self._client.query_points(
                    target,
                    query=query if isinstance(query, SparseVector) else list(query),
                    using=using,
                    query_filter=qdrant_filter(filters, is_prefix_scanned=is_scanned),
                    limit=WINDOW,
                    with_payload=[*RANKED_BY, "url"] if is_scanned else RANKED_BY,
                )
        except RefusedError as error:
            self._release = None
            if prefix and not is_scanned and not await self._serves_prefixes():
                return await self.hits(
                    target, using, query, filters
                )  # an older release runs there since
            raise _refusal(filters, error, is_scanned=is_scanned) from error
        # A scan finds the prefix anywhere in a URL.
        return [
            _hit(point)
            for point in found.points
            if not is_scanned or _url(point).startswith(prefix)
        ]

    async def payloads(self, target: str, ids: Sequence[str]) -> dict[str, Payload]:
        """Payload by point id; a point that is not stored any more is missing."""
        if not ids:
            return {}
        with search_errors():
            records = await self._client.retrieve(target, list(ids), with_payload=True)
        return {str(record.id): record.payload or {} for record in records}

    async def _serves_prefixes(self) -> bool:
        self._release = self._release or await read_release(self._client)
        return self._release is None or self._release >= PREFIX


def _refusal(filters: SearchFilters, error: RefusedError, *, is_scanned: bool) -> RejectedError:
    if is_scanned:
        reason = f"`url_prefix` needs Qdrant {PREFIX} or later, refused: {error.reason}"
    else:
        given = [name for name in filters.__struct_fields__ if getattr(filters, name) is not None]
        names = ", ".join(f"`{name}`" for name in given)
        reason = f"Qdrant refuses a search with the filters {names}: {error.reason}"
    return RejectedError("unsupported_filter", reason, "qdrant")


def _hit(point: ScoredPoint) -> Hit:
    payload = point.payload or {}
    return Hit(
        id=str(point.id),
        document_id=payload["document_id"],
        version=payload["version"],
        chunk_index=payload["chunk_index"],
        score=point.score,
    )


def _url(point: ScoredPoint) -> str:
    return str((point.payload or {}).get("url", ""))
