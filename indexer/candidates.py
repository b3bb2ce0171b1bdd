"""Documents of the index stage as candidates for the fence, and its results as outcomes."""

import asyncio
import datetime as dt
import os

import msgspec

from indexer.fence import Candidate, Result
from indexer.keyword import KeywordEncoder
from indexer.qdrant.points import points_of
from shared.jobs.registry import Registration
from shared.jobs.targets import Target
from shared.pipeline.fair_queue import FairSlots
from shared.pipeline.messages import DocumentRef, EmbeddedDocument
from shared.pipeline.outcomes import Dead, Done, Outcome
from shared.runtime.stage import Batch, Document
from shared.service.errors import RejectedError


class Candidates:
    """Makes candidates in threads, as many at once as there are processors."""

    def __init__(self) -> None:
        self._turns = FairSlots(os.cpu_count() or 1)

    async def make(self, document: Document, batch: Batch, encoder: KeywordEncoder) -> Candidate:
        """Make the points of a document. The wait for a thread does not count against its limit."""
        with document.limit.held():
            await self._turns.acquire(batch.lane)
        try:
            return await asyncio.to_thread(
                candidate_of, document.ref, document.body, batch.target, encoder
            )
        finally:
            self._turns.release()


def candidate_of(
    ref: DocumentRef, embedded: EmbeddedDocument, target: Target, encoder: KeywordEncoder
) -> Candidate:
    """Make the points of a document. CPU-bound: call it in a thread. Raises RejectedError."""
    points = points_of(
        ref, embedded, domain=ref.domain, collection=target.collection,
        indexed_at=dt.datetime.now(dt.UTC),
        encoder=encoder,
    )  # fmt: skip
    document = embedded.document
    registration = msgspec.structs.replace(
        _registration(ref, is_live=True),
        content_hash=document.content_hash,
        fingerprint=document.fingerprint,
        chunks=len(points),
    )
    return Candidate(registration=registration, points=points)


def deletion_of(ref: DocumentRef) -> Candidate:
    """Make the candidate that deletes a document."""
    return Candidate(registration=_registration(ref, is_live=False))


def outcome_of(candidate: Candidate, result: Result) -> Outcome:
    """Map a result of the fence to an outcome."""
    if isinstance(result, RejectedError):
        return Dead(result.code, result.reason, attempts=1, dependency=result.service)
    return Done(result, len(candidate.points))


def _registration(ref: DocumentRef, *, is_live: bool) -> Registration:
    return Registration(
        document_id=ref.document_id, version=ref.version, is_live=is_live, url=ref.url,
        domain=ref.domain,
        crawl_id=ref.crawl_id,
    )  # fmt: skip
