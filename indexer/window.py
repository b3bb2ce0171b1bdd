"""Both sides of one search, read from Qdrant: dense and keyword hits. Knows no versions or pages."""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient
from qdrant_client.models import (
    Condition,
    DatetimeRange,
    FieldCondition,
    Filter,
    MatchPrefix,
    MatchValue,
    ScoredPoint,
    SparseVector,
)

from indexer.collection import DENSE, SPARSE
from indexer.ranking import WINDOW, Hit
from indexer.search_contract import Mode, SearchFilters
from shared.errors import DependencyError, RejectedError
from shared.qdrant import qdrant_errors

Embedding = Sequence[float] | NDArray[np.float32]
EmbedQuery = Callable[[str], Awaitable[Embedding]]

_RANKED_BY = ["document_id", "version", "chunk_index"]  # texts are fetched for one page only


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of which collection."""

    target: str  # the collection's name in Qdrant
    mode: Mode
    text: str
    terms: SparseVector
    filter: Filter | None


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Up to 200 hits of each side that answered."""

    sides: tuple[Sequence[Hit], ...]
    is_degraded: bool  # the dense side is missing though it was asked for


class WindowReader:
    """Reads the window of one question, as often as it is asked to; embeds the query once."""

    def __init__(
        self, client: AsyncQdrantClient, embed_query: EmbedQuery, embed_timeout_s: float, question: Question
    ) -> None:
        self._client = client
        self._embed_query = embed_query
        self._embed_timeout_s = embed_timeout_s
        self._question = question
        self._embedding: list[float] | None = None
        self._is_degraded = False

    async def read(self) -> Window:
        """Ask both sides at once.

        Raises DependencyError when Qdrant is away, or TEI in a semantic search; MissingCollectionError;
        RejectedError if TEI refuses the query of a semantic search.
        """
        sides = {
            Mode.HYBRID: (self._dense, self._keyword),
            Mode.SEMANTIC: (self._dense,),
            Mode.KEYWORD: (self._keyword,),
        }[self._question.mode]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(side()) for side in sides]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return Window(sides=tuple(task.result() for task in tasks), is_degraded=self._is_degraded)

    async def _dense(self) -> list[Hit]:
        if not self._is_degraded:
            try:
                self._embedding = self._embedding or await self._embed()
                return await self._query(self._embedding, DENSE)
            except (DependencyError, RejectedError) as error:
                is_tei = isinstance(error, RejectedError) or error.service == "tei"
                if self._question.mode is not Mode.HYBRID or not is_tei:
                    raise
                self._is_degraded = True
        return []

    async def _keyword(self) -> list[Hit]:
        # Stop words alone make no terms, and Qdrant refuses an empty sparse query.
        return await self._query(self._question.terms, SPARSE) if self._question.terms.indices else []

    async def _embed(self) -> list[float]:
        try:
            async with asyncio.timeout(self._embed_timeout_s):
                return [float(value) for value in await self._embed_query(self._question.text)]
        except TimeoutError as error:
            raise DependencyError("tei", f"no embedding within {self._embed_timeout_s} s") from error

    async def _query(self, vector: list[float] | SparseVector, using: str) -> list[Hit]:
        with qdrant_errors():
            found = await self._client.query_points(
                self._question.target,
                query=vector,
                using=using,
                query_filter=self._question.filter,
                limit=WINDOW,
                with_payload=_RANKED_BY,
            )
        return [_hit(point) for point in found.points]


def qdrant_filter(filters: SearchFilters) -> Filter | None:
    """The same conditions for Qdrant, None without any."""
    must: list[Condition] = [
        FieldCondition(key=name, match=MatchValue(value=value))
        for name in ("language", "country", "is_mobile", "crawl_id")
        if (value := getattr(filters, name)) is not None
    ]
    if filters.domain is not None:
        must.append(FieldCondition(key="domain", match=MatchValue(value=filters.domain.lower())))
    if filters.url_prefix is not None:
        must.append(FieldCondition(key="url", match=MatchPrefix(prefix=filters.url_prefix)))
    if filters.indexed_after is not None:
        after = filters.indexed_after
        after = after if after.tzinfo else after.replace(tzinfo=dt.UTC)
        must.append(FieldCondition(key="indexed_at", range=DatetimeRange(gt=after)))
    return Filter(must=must) if must else None


def _hit(point: ScoredPoint) -> Hit:
    payload = point.payload or {}
    return Hit(
        id=str(point.id),
        document_id=payload["document_id"],
        version=payload["version"],
        chunk_index=payload["chunk_index"],
        score=point.score,
    )
