"""The keyword side of a search: what any engine does, and Qdrant's sparse vectors as the first of them.

The other is rank_bm25_index.py, in this process. tests/contract/test_keyword_index.py holds both to the same.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec
from qdrant_client import AsyncQdrantClient
from qdrant_client.models import ScoredPoint, SparseVector

from indexer.qdrant.client import qdrant_errors
from indexer.qdrant.collection import SPARSE
from indexer.search.filters import qdrant_filter
from indexer.search.ranking import WINDOW, Hit
from shared.service.search_contract import SearchFilters

RANKED_BY = ["document_id", "version", "chunk_index"]  # texts are fetched for one page only


class KeywordQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of which collection."""

    target: str  # the collection's name in Qdrant
    terms: SparseVector  # of KeywordEncoder.encode_query, not empty
    filters: SearchFilters


class KeywordIndex(Protocol):
    """An engine for keyword search."""

    async def search(self, question: KeywordQuestion) -> Sequence[Hit]:
        """Up to 200 chunks that have a term of the query, best first, of any version of their document.

        Raises DependencyError when what it reads from is away, MissingCollectionError.
        """
        ...


class QdrantKeywordIndex:
    """BM25 over the sparse vectors that are written with every point; Qdrant knows how rare a term is."""

    def __init__(self, client: AsyncQdrantClient) -> None:
        self._client = client

    async def search(self, question: KeywordQuestion) -> Sequence[Hit]:
        with qdrant_errors():
            found = await self._client.query_points(
                question.target,
                query=question.terms,
                using=SPARSE,
                query_filter=qdrant_filter(question.filters),
                limit=WINDOW,
                with_payload=RANKED_BY,
            )
        return [hit_of(point) for point in found.points]


def hit_of(point: ScoredPoint) -> Hit:
    """What ranking needs of a point that was queried with RANKED_BY."""
    payload = point.payload or {}
    return Hit(
        id=str(point.id),
        document_id=payload["document_id"],
        version=payload["version"],
        chunk_index=payload["chunk_index"],
        score=point.score,
    )
