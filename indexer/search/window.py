"""Both sides of one search: dense hits from Qdrant, keyword hits from a keyword index. Knows no
versions or pages.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from qdrant_client.models import SparseVector

from indexer.qdrant.collection import DENSE
from indexer.search.keywords.keyword_index import KeywordIndex, KeywordQuestion
from indexer.search.point_reader import PointReader
from indexer.search.ranking import Hit
from indexer.search.timing import Part, SearchTiming
from shared.service.errors import DependencyError, RejectedError
from shared.service.search_contract import Mode, SearchFilters

Embedding = Sequence[float] | NDArray[np.float32]
EmbedText = Callable[[str, str | None], Awaitable[Embedding]]  # of a text, and by which model
EmbedQuery = Callable[[str, str], Awaitable[Embedding]]  # of a target's name and a text


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of which collection."""

    target: str  # the collection's name in Qdrant
    mode: Mode
    text: str
    terms: SparseVector
    filters: SearchFilters


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Up to 200 hits of each side that answered."""

    sides: tuple[Sequence[Hit], ...]
    is_degraded: bool  # the dense side is missing though it was asked for


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Where hits come from."""

    points: PointReader
    keyword: KeywordIndex
    embed_query: EmbedQuery
    embed_timeout_s: float = 5.0  # then the keyword side answers alone; a person waits for this


class WindowReader:
    """Reads the window of one question, as often as it is asked to; embeds the query once."""

    def __init__(self, sources: Sources, question: Question, timing: SearchTiming) -> None:
        self._sources = sources
        self._question = question
        self._timing = timing
        self._embedding: list[float] | None = None
        self._is_degraded = False

    async def read(self) -> Window:
        """Ask both sides at once.

        Raises DependencyError when Qdrant is unavailable, or TEI in a semantic search;
        MissingCollectionError; RejectedError if TEI refuses the query of a semantic search.
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

    async def _dense(self) -> Sequence[Hit]:
        if self._is_degraded:
            return []
        if self._embedding is None:
            try:
                self._embedding = await self._embed()
            except (DependencyError, RejectedError):
                if self._question.mode is not Mode.HYBRID:
                    raise
                self._is_degraded = True
                return []
        return await self._nearest(self._embedding)

    async def _keyword(self) -> Sequence[Hit]:
        if not self._question.terms.indices:
            return []  # stop words alone make no terms
        question = KeywordQuestion(
            target=self._question.target, terms=self._question.terms, filters=self._question.filters
        )
        with self._timing.of(Part.KEYWORD):
            return await self._sources.keyword.search(question)

    async def _embed(self) -> list[float]:
        limit = self._sources.embed_timeout_s
        try:
            with self._timing.of(Part.EMBEDDING):
                async with asyncio.timeout(limit):
                    embedding = await self._sources.embed_query(
                        self._question.target, self._question.text
                    )
                    return [float(value) for value in embedding]
        except TimeoutError as error:
            raise DependencyError("tei", f"no embedding within {limit} s") from error

    async def _nearest(self, vector: list[float]) -> list[Hit]:
        with self._timing.of(Part.DENSE):
            return await self._sources.points.hits(
                self._question.target, DENSE, vector, self._question.filters
            )
