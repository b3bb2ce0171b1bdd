"""The index stage: points for every chunk, brought past the version fence; deletes come here straight away."""

import asyncio
import datetime as dt
import time
from collections.abc import Sequence

import msgspec
import structlog
from qdrant_client import AsyncQdrantClient

from indexer.fence import Candidate, Fence, Result
from indexer.keyword import KeywordEncoder, KeywordParameters
from indexer.qdrant.client import MissingCollectionError
from indexer.qdrant.collection import (
    Collection,
    DimensionMismatchError,
    GenerationMismatchError,
    ensure_collection,
    point_alias,
)
from indexer.qdrant.points import points_of
from indexer.qdrant.store import PointStore
from indexer.recovery import Recovery
from indexer.store_guard import StoreGuard
from shared.jobs.operations import Operation, OperationLog
from shared.jobs.registry import Registration, Registry
from shared.jobs.targets import Target, Targets
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import Action, EmbeddedDocument, decode_part
from shared.pipeline.outcomes import Batch, Dead, Done, Outcome, Work
from shared.pipeline.stages import StageName
from shared.runtime.batch import BatchWorker
from shared.runtime.faults.failures import Failures
from shared.service.clients import PostgresPool
from shared.service.errors import DependencyError, RejectedError
from shared.service.settings import RuntimeSettings

log = structlog.get_logger()


class IndexStage:
    """Makes documents searchable, and takes them away again."""

    name = StageName.INDEXER

    def __init__(
        self, client: AsyncQdrantClient, pool: PostgresPool, keyword: KeywordParameters, operations: OperationLog,
        failures: Failures, settings: RuntimeSettings,
    ) -> None:  # fmt: skip
        self._client = client
        self._targets = Targets(pool)
        store = PointStore(client)
        self._fences = {lane: Fence(Registry(pool), store.of(lane)) for lane in Lane}
        self.guard = StoreGuard(client, self._targets, Recovery(pool, settings.indexing_job_timeout))
        self._keyword = keyword
        self._operations = operations
        self._failures = failures
        self._settings = settings
        self._ready: dict[str, tuple[Collection, KeywordEncoder]] = {}

    async def handle(self, batch: Batch) -> list[Outcome]:
        target = await self._targets.get(batch.target)

        async def handle_document(work: Work) -> Candidate | Outcome:
            if work.ref.action is Action.DELETE:
                return Candidate(registration=_registration(work, is_live=False))
            embedded = decode_part(work.body, EmbeddedDocument)
            encoder = await self._encoder(target, embedded.dimension)
            return await asyncio.to_thread(_candidate, work, embedded, target, encoder)

        worker: BatchWorker[Work, Candidate | Outcome] = BatchWorker(
            handle_document,
            limit=len(batch.works),
            on_error=self._failures,
            timeout=self._settings.document_timeout,
        )
        prepared = await worker.process_batch(batch.works)
        candidates = [c for c in prepared if isinstance(c, Candidate)]
        ended = iter(await self._apply(target, candidates, batch.lane))
        return [_outcome(item, next(ended)) if isinstance(item, Candidate) else item for item in prepared]

    async def _apply(self, target: Target, candidates: Sequence[Candidate], lane: Lane) -> list[Result]:
        started = time.monotonic()
        try:
            results = await self._fences[lane].apply(target.target, candidates)
        except MissingCollectionError:
            self._ready.pop(target.target, None)  # lost while we ran: the next try makes it again
            raise
        points = sum(len(candidate.points) for candidate in candidates)
        self._operations.add(
            Operation(
                operation_type="qdrant", operation_name="index", duration_ms=(time.monotonic() - started) * 1000,
                metadata={"documents": len(candidates), "points": points},
            )
        )  # fmt: skip
        return results

    async def _encoder(self, target: Target, dimension: int) -> KeywordEncoder:
        """The keyword encoder of the target's collection, which is made if it is not there."""
        ready = self._ready.get(target.target)
        if ready is None or (ready[0].generation, ready[0].dimension) != (target.generation, dimension):
            collection = await self._ensure(target, dimension)
            ready = self._ready[target.target] = (collection, KeywordEncoder(collection.keyword))
        return ready[1]

    async def _ensure(self, target: Target, dimension: int) -> Collection:
        await self.guard.check(target.target)
        try:
            collection = await ensure_collection(
                self._client, target.target, dimension=dimension, generation=target.generation, keyword=self._keyword
            )
        except (GenerationMismatchError, DimensionMismatchError) as error:
            raise DependencyError("qdrant", str(error)) from error  # a person must act; no document is at fault
        # Not only where it was just made: who made it may have died before it came to this.
        if target.live:
            await point_alias(self._client, target.collection, target.target)
        if collection.keyword != self._keyword:
            log.warning("Keyword settings differ from the collection's", collection=target.target)
        return collection


def _candidate(work: Work, embedded: EmbeddedDocument, target: Target, encoder: KeywordEncoder) -> Candidate:
    points = points_of(
        work.ref, embedded, domain=work.ref.domain, collection=target.collection, indexed_at=dt.datetime.now(dt.UTC),
        encoder=encoder,
    )  # fmt: skip
    document = embedded.document
    registration = _registration(work, is_live=True)
    return Candidate(
        registration=msgspec.structs.replace(
            registration, content_hash=document.content_hash, fingerprint=document.fingerprint, chunks=len(points)
        ),
        points=points,
    )


def _registration(work: Work, *, is_live: bool) -> Registration:
    ref = work.ref
    return Registration(
        document_id=ref.document_id, version=ref.version, is_live=is_live, url=ref.url, domain=ref.domain,
        crawl_id=ref.crawl_id,
    )  # fmt: skip


def _outcome(candidate: Candidate, result: Result) -> Outcome:
    if isinstance(result, RejectedError):
        return Dead(result.code, result.reason, attempts=1, dependency=result.service)
    return Done(result, len(candidate.points))
