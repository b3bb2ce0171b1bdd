"""The keyword side of a search: what any engine does, and Qdrant's sparse vectors as the first of
them.

The other is rank_bm25_index.py, in this process. tests/contract/test_keyword_index.py holds both to
the same.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec
from qdrant_client.models import SparseVector

from indexer.qdrant.collection import SPARSE
from indexer.search.point_reader import PointReader
from indexer.search.ranking import Hit
from shared.service.search_contract import SearchFilters


class KeywordQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of which collection."""

    target: str  # the collection's name in Qdrant
    terms: SparseVector  # of KeywordEncoder.encode_query, not empty
    filters: SearchFilters


class KeywordIndex(Protocol):
    """An engine for keyword search."""

    async def search(self, question: KeywordQuestion) -> Sequence[Hit]:
        """Up to 200 chunks that have a term of the query, best first, of any version of their
        document.

        Raises DependencyError when its source is unavailable, and MissingCollectionError.
        """
        ...


class QdrantKeywordIndex:
    """BM25 over the sparse vectors that are written with every point; Qdrant knows how rare a term
    is.
    """

    def __init__(self, points: PointReader) -> None:
        self._points = points

    async def search(self, question: KeywordQuestion) -> Sequence[Hit]:
        return await self._points.hits(question.target, SPARSE, question.terms, question.filters)
