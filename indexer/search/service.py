"""Search: window from Qdrant -> visible versions, from the registry -> ranking -> a page with
texts.

Qdrant may hold points of several versions of a document; the registry alone decides which of them
exist for a reader. The two are read one after the other, so a document that changes in between is
asked for again.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import msgspec
from qdrant_client.models import SparseVector

from indexer.keyword import KeywordEncoder, KeywordParameters
from indexer.qdrant.client import MissingCollectionError
from indexer.search import ranking
from indexer.search.point_reader import Payload
from indexer.search.ranking import Hit
from indexer.search.timing import Part, SearchTiming
from indexer.search.window import Question, Sources, Window, WindowReader
from shared.service.errors import DependencyError
from shared.service.search_contract import (
    Collapse,
    Mode,
    SearchRequest,
    SearchResponse,
    SearchResult,
)

# Of one search; more than two are seen only while one page changes many times a second.
MAX_ROUNDS = 5


class Visibility(Protocol):
    """What search asks of Postgres. Both methods raise DependencyError when it is unavailable."""

    async def target_of(self, collection: str) -> str | None:
        """The name in Qdrant of the target that serves a collection; None before its first
        document.
        """
        ...

    async def live_versions(
        self, target: str, document_ids: Sequence[str]
    ) -> Mapping[str, int | None]:
        """Live version by document id; None for a deleted document, no key for an unknown one."""
        ...


class SearchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of an engine."""

    default_collection: str = "pulse_docs"
    rrf_k: int = 60


class _Page(msgspec.Struct, frozen=True, kw_only=True):
    """What one round found."""

    hits: Sequence[Hit]
    payloads: Mapping[str, Payload]
    total: int
    is_degraded: bool
    is_whole: bool  # no point vanished before its text was read
    overtaken: Mapping[
        str, int
    ]  # what was decided while the hits were read: live version by document id


class SearchEngine:
    """Answers searches; holds no state of a search, so one serves a whole process."""

    def __init__(self, sources: Sources, visibility: Visibility, options: SearchOptions) -> None:
        self._sources = sources
        self._visibility = visibility
        self._options = options
        self._encoder = KeywordEncoder(
            KeywordParameters()
        )  # a query's terms do not depend on the parameters
        self._last_target: dict[str, str] = {}  # by collection, for when Postgres is unavailable

    async def search(
        self, request: SearchRequest, timing: SearchTiming | None = None
    ) -> SearchResponse:
        """Answer one search, and note in `timing` what it waited for; a collection that is not
        there has no results.

        Without Postgres the newest version of a document stands for the live one, and without TEI a
        hybrid search answers by keywords; both are `degraded`. Raises DependencyError when Qdrant
        is unavailable, or TEI for a semantic search; RejectedError if TEI refuses the query.
        """
        timing = timing or SearchTiming()
        terms = self._encoder.encode_query(request.query)
        with timing.of(Part.REGISTRY):
            target, is_degraded = await self._target(
                request.collection or self._options.default_collection
            )
        page = _NOTHING
        if target is not None:
            question = Question(
                target=target,
                mode=request.mode,
                text=request.query,
                terms=terms,
                filters=request.filters,
            )
            page = await self._settled_page(question, request, timing)
        return SearchResponse(
            results=tuple(self._results(page, terms)),
            total=page.total,
            query=request.query,
            mode=request.mode,
            took_ms=round(timing.elapsed_s * 1000, 3),
            degraded=is_degraded or page.is_degraded,
        )

    async def _target(self, collection: str) -> tuple[str | None, bool]:
        try:
            target = await self._visibility.target_of(collection)
        except DependencyError:
            if collection not in self._last_target:
                raise
            return self._last_target[collection], True
        if target is not None:
            self._last_target[collection] = target
        return target, False

    async def _settled_page(
        self, question: Question, request: SearchRequest, timing: SearchTiming
    ) -> _Page:
        reader = WindowReader(self._sources, question, timing)
        page = _NOTHING
        try:
            for _ in range(MAX_ROUNDS):
                known = page.overtaken
                page = await self._page(await reader.read(), question.target, request, timing)
                # A version that was live before the hits were read could have been hit: it does not
                # match.
                if page.is_whole and page.overtaken.items() <= known.items():
                    break
        except MissingCollectionError:
            return _NOTHING
        return page

    async def _page(
        self, window: Window, target: str, request: SearchRequest, timing: SearchTiming
    ) -> _Page:
        hits = [hit for side in window.sides for hit in side]
        with timing.of(Part.REGISTRY):
            live, is_guess = await self._live_versions(target, hits)
        ranked = self._ranked([ranking.live_hits(side, live) for side in window.sides], request)
        page = ranked[request.offset : request.offset + request.limit]
        with timing.of(Part.TEXTS):
            payloads = await self._sources.points.payloads(target, [hit.id for hit in page])
        return _Page(
            hits=page,
            payloads=payloads,
            total=len(ranked),
            is_degraded=window.is_degraded or is_guess,
            is_whole=len(payloads) == len(page),
            overtaken=ranking.overtaken_documents(window.sides, live),
        )

    def _results(self, page: _Page, terms: SparseVector) -> Iterator[SearchResult]:
        for hit in page.hits:
            if payload := page.payloads.get(hit.id):
                yield _result(hit, payload, self._encoder.highlight(payload["text"], terms))

    def _ranked(self, sides: Sequence[Sequence[Hit]], request: SearchRequest) -> list[Hit]:
        is_collapsed = request.collapse is Collapse.DOCUMENT
        if request.mode is Mode.HYBRID:
            fuse = ranking.fuse_documents if is_collapsed else ranking.fuse
            return fuse(sides, self._options.rrf_k)
        ranked = ranking.order(sides[0])
        return ranking.best_per_document(ranked) if is_collapsed else ranked

    async def _live_versions(
        self, target: str, hits: Sequence[Hit]
    ) -> tuple[Mapping[str, int | None], bool]:
        document_ids = list({hit.document_id: None for hit in hits})
        if not document_ids:
            return {}, False
        try:
            return await self._visibility.live_versions(target, document_ids), False
        except DependencyError:
            return ranking.newest_versions(hits), True


_NOTHING = _Page(hits=(), payloads={}, total=0, is_degraded=False, is_whole=True, overtaken={})


def _result(hit: Hit, payload: Payload, highlights: Sequence[tuple[int, int]]) -> SearchResult:
    """Every field that is not of this search has the name of a payload field."""
    found = {"id": hit.id, "score": hit.score, "highlights": highlights}
    return msgspec.convert({**payload, **found}, SearchResult)
