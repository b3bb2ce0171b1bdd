"""Keyword search in this process: rank-bm25 over the live chunks, kept current by the registry's
changes.

Any number of search processes may each keep one. Every search scans every chunk: exact, and fine up
to about 10,000.
"""

import asyncio
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
import structlog
from qdrant_client import AsyncQdrantClient
from qdrant_client.models import FieldCondition, Filter, MatchAny, SparseVector

from indexer.keyword import KeywordEncoder, KeywordParameters
from indexer.qdrant.client import search_errors
from indexer.search.filters import Filtered, matches
from indexer.search.keywords.keyword_index import KeywordQuestion
from indexer.search.keywords.okapi import ChangingBm25
from indexer.search.point_reader import RANKED_BY
from indexer.search.ranking import WINDOW, Hit, order
from shared.service.errors import DependencyError
from shared.service.search_contract import SearchFilters

log = structlog.get_logger()

LARGE = 10_000  # chunks; from here on a search takes over 20 ms of the one thread that Python has
POLL_SECONDS = 1.0
# A change is dated by its statement's start and seen after its commit, which may come later than
# our last look.
OVERLAP = dt.timedelta(minutes=1)

_DOCUMENTS_OF_REQUEST = 64
_PAGE = 1000
_EVER = dt.datetime.fromtimestamp(0, dt.UTC)
_PAYLOAD = [*RANKED_BY, *Filtered.__struct_fields__, "prefix", "text"]


class Changes(Protocol):
    """What the index asks of the registry. Both raise DependencyError without Postgres."""

    async def changes(
        self, target: str, since: dt.datetime
    ) -> tuple[dt.datetime, Mapping[str, int | None]]:
        """The database's time, and the live version of each document that changed since then."""
        ...

    async def targets_in_use(self) -> Sequence[str]:
        """The targets that serve a collection, or will soon."""
        ...


class _StoredChunk(msgspec.Struct, frozen=True, kw_only=True):
    document_id: str
    version: int
    chunk_index: int
    text: str
    prefix: str = ""


class _Chunk(msgspec.Struct, frozen=True):
    hit: Hit  # without a score
    filtered: Filtered
    terms: Mapping[int, int]  # how often each stands in it


class RankBm25Index:
    """Keyword indexes by target, each loaded when it is first needed or by `run`."""

    def __init__(
        self,
        client: AsyncQdrantClient,
        changes: Changes,
        *,
        k1: float = 1.5,
        b: float = 0.75,
        large: int = LARGE,
    ) -> None:
        """From `large` chunks of a target on, its index is warned about."""
        self._client = client
        self._changes = changes
        self._encoder = KeywordEncoder(
            KeywordParameters()
        )  # counts terms, which does not depend on the parameters
        self._bm25 = {"k1": k1, "b": b}
        self._large = large
        self._targets: dict[str, _TargetIndex] = {}

    async def run(self) -> None:
        """Keep the indexes of all targets in use loaded and current, until cancelled."""
        while True:
            try:
                for target in await self._changes.targets_in_use():
                    await self._current(target)
            except DependencyError as error:
                log.warning("Keyword index not refreshed", error=str(error))
            await asyncio.sleep(POLL_SECONDS)

    async def search(self, question: KeywordQuestion) -> Sequence[Hit]:
        """See KeywordIndex. What was decided before the search began is in it, unless Postgres is
        unavailable.
        """
        try:
            index = await self._current(question.target)
        except DependencyError:
            index = self._targets[question.target]
            if index.read_at == _EVER:
                raise
        async with index.lock:  # scoring leaves the event loop, and must not see half a change
            return await asyncio.to_thread(index.search, question.terms, question.filters)

    async def _current(self, target: str) -> "_TargetIndex":
        index = self._targets.setdefault(target, _TargetIndex(ChangingBm25(**self._bm25)))
        async with index.lock:
            read_at, live = await self._changes.changes(target, index.read_at)
            stale = index.stale(live)
            for ids in _groups(list(stale), _DOCUMENTS_OF_REQUEST):
                found = await self._stored_chunks(target, {id_: stale[id_] for id_ in ids})
                for id_ in ids:
                    index.replace(id_, stale[id_], found.get(id_, ()))
            index.read_at = read_at - OVERLAP
            index.warn_if_large(target, self._large)
        return index

    async def _stored_chunks(
        self, target: str, live: Mapping[str, int | None]
    ) -> dict[str, list[_Chunk]]:
        """The chunks of the live version and of later ones, by document.

        Between the answer of the registry and that of Qdrant, the next version may have become live
        and the points of this one may be deleted. Search asks the registry again and shows the
        version that is live then.
        """
        found: dict[str, list[_Chunk]] = {}
        for payload, id_ in await self._stored(
            target, [id_ for id_, version in live.items() if version is not None]
        ):
            stored = msgspec.convert(payload, _StoredChunk)
            if stored.version >= (live[stored.document_id] or 0):
                found.setdefault(stored.document_id, []).append(self._chunk(payload, stored, id_))
        return found

    async def _stored(
        self, target: str, document_ids: list[str]
    ) -> list[tuple[dict[str, Any], str]]:
        """Payload and id of all points of these documents."""
        condition = Filter(
            must=[FieldCondition(key="document_id", match=MatchAny(any=document_ids))]
        )
        found: list[tuple[dict[str, Any], str]] = []
        offset: Any = None
        while document_ids:
            with search_errors():
                points, offset = await self._client.scroll(
                    target, condition, limit=_PAGE, offset=offset, with_payload=_PAYLOAD
                )
            found += [(point.payload or {}, str(point.id)) for point in points]
            if offset is None:
                break
        return found

    def _chunk(self, payload: dict[str, Any], stored: _StoredChunk, id_: str) -> _Chunk:
        hit = Hit(
            id=id_,
            document_id=stored.document_id,
            version=stored.version,
            chunk_index=stored.chunk_index,
            score=0,
        )
        terms = self._encoder.encode_query(stored.prefix + stored.text)
        return _Chunk(hit, msgspec.convert(payload, Filtered), _counts(terms))


class _TargetIndex:
    """The chunks of one target. Hold `lock` while you look or change."""

    def __init__(self, bm25: ChangingBm25) -> None:
        self.lock = asyncio.Lock()
        self.read_at = _EVER  # the time since when changes may be unknown
        self._read: dict[
            str, int
        ] = {}  # the live version of each document when its chunks were read
        self._unsettled: dict[
            str, int
        ] = {}  # those of _read beside which another version was stored
        self._bm25 = bm25
        self._chunks: list[_Chunk] = []  # by their number in bm25
        self._numbers: dict[str, set[int]] = {}  # of the chunks of a document
        self._has_warned = False

    def stale(self, live: Mapping[str, int | None]) -> dict[str, int | None]:
        """The documents to read: their live version is another one, or may not be the only one that
        is stored.

        A version that is not committed yet may be committed or withdrawn, and the registry tells of
        a commit only.
        """
        changed = {
            id_: version for id_, version in live.items() if not self._is_settled(id_, version)
        }
        return {**self._unsettled, **changed}

    def _is_settled(self, document_id: str, live: int | None) -> bool:
        if live is None:
            return document_id not in self._numbers
        return self._read.get(document_id) == live and document_id not in self._unsettled

    def replace(self, document_id: str, live: int | None, chunks: Sequence[_Chunk]) -> None:
        """Take the chunks that are stored of a document instead of those known before.

        A live document without chunks has changed since: what is known of it stays, so that search
        has a hit of it, sees that it is old, and asks again.
        """
        self._unsettled.pop(document_id, None)
        if live is not None and not chunks:
            return
        self._remove(document_id)
        for chunk in chunks:
            self._add(chunk)
        versions = {chunk.hit.version for chunk in chunks}
        if live in versions:
            self._read[document_id] = live
        if live is not None and versions != {live}:
            self._unsettled[document_id] = live

    def _add(self, chunk: _Chunk) -> None:
        self._numbers.setdefault(chunk.hit.document_id, set()).add(len(self._chunks))
        self._chunks.append(chunk)
        self._bm25.add(chunk.terms)

    def _remove(self, document_id: str) -> None:
        # From the last one on: so the chunk that gets a number is never one that is removed, too.
        for number in sorted(self._numbers.pop(document_id, ()), reverse=True):
            self._bm25.remove(number)
            last = self._chunks.pop()
            if number < len(self._chunks):
                self._chunks[number] = last
                self._numbers[last.hit.document_id] ^= {number, len(self._chunks)}
        self._read.pop(document_id, None)

    def search(self, terms: SparseVector, filters: SearchFilters) -> list[Hit]:
        """The best chunks that have a term. Holds the GIL: 20 ms for 10,000 chunks."""
        query = [term for term, count in _counts(terms).items() for _ in range(count)]
        scores = self._bm25.get_scores(query)
        found = (
            msgspec.structs.replace(self._chunks[number].hit, score=float(scores[number]))
            for number in np.flatnonzero(scores)
            if matches(filters, self._chunks[number].filtered)
        )
        return order(found)[:WINDOW]

    def warn_if_large(self, target: str, large: int) -> None:
        if len(self._chunks) > large and not self._has_warned:
            log.warning("Keyword index is large", target=target, chunks=len(self._chunks))
            self._has_warned = True


def _counts(terms: SparseVector) -> dict[int, int]:
    return {term: round(count) for term, count in zip(terms.indices, terms.values, strict=True)}


def _groups(ids: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))
