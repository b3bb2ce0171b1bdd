"""From parsed documents to a durable job. Webhooks and API calls both use it."""

import uuid
from collections.abc import Sequence

import msgspec
import structlog

from ingest.documents.canonical import domain_of
from ingest.documents.document import Document, RejectedDocument
from ingest.jobs.accept import DeliveryKey, Progress, accept
from ingest.jobs.prune import record_crawl_end
from shared.jobs.model import JobKind, NewItem, NewJob, Removal
from shared.jobs.payloads import encode_payload
from shared.jobs.targets import Targets
from shared.pipeline.ids import document_id
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import Action, StoredDocument
from shared.pipeline.tracing import OFF, Tracing
from shared.service.clients import PostgresPool, is_postgres_unavailable
from shared.service.errors import DependencyError
from shared.service.metrics import Metrics

log = structlog.get_logger()

_LOGGED = 20  # rejected documents of one request; the answer lists all of them


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A request without its documents."""

    kind: JobKind
    lane: Lane
    source: str | None  # None: the id of the job, so that a bulk load is one source
    collection: str | None = None
    crawl_id: str | None = None
    callback_url: str | None = None
    request_id: str | None = None
    delivery: DeliveryKey | None = None


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """Response to the sender: the documents are durable."""

    job_id: str
    documents: int
    rejected: list[RejectedDocument]
    status_url: str
    status: str = "queued"


class Acceptance:
    """Accepts work.

    Raises DependencyError when Postgres is unavailable, and IdempotencyConflictError.
    """

    def __init__(
        self,
        pool: PostgresPool,
        metrics: Metrics,
        *,
        collection: str,
        timeout: float,
        tracing: Tracing = OFF,
    ) -> None:
        self._pool = pool
        self._targets = Targets(pool)
        self._metrics = metrics
        self._collection = collection
        self._timeout = timeout
        self._tracing = tracing
        self._known_collections: set[str] = set()

    async def index(
        self, order: Order, documents: Sequence[Document | RejectedDocument], progress: Progress
    ) -> Accepted:
        """Accept documents to index; rejected ones become failed items of the job."""
        job_id = str(uuid.uuid4())
        source = order.source or job_id
        items = [self._item(order, document, source) for document in documents]
        rejected = [document for document in documents if isinstance(document, RejectedDocument)]
        for document in rejected[:_LOGGED]:
            log.warning(
                "Failed to parse document payload",
                position=document.position,
                url=document.url,
                error=document.error,
            )
        for kept in documents:
            if isinstance(kept, Document) and kept.metadata_omitted:
                log.warning("Metadata left out", url=kept.url, entries=kept.metadata_omitted)
        job_id = await self._commit(self._job(order, job_id), items, order.delivery, progress)
        return _accepted(job_id, len(items), rejected)

    async def delete(self, order: Order, url: str, canonical: str, progress: Progress) -> Accepted:
        """Accept the removal of one document."""
        known_as = document_id(order.collection or self._collection, canonical)
        return await self.remove(
            order, [Removal(document_id=known_as, url=url, domain=domain_of(canonical))], progress
        )

    async def remove(
        self, order: Order, removals: Sequence[Removal], progress: Progress
    ) -> Accepted:
        """Accept the removal of documents of one collection."""
        job_id = str(uuid.uuid4())
        items = [
            NewItem(
                url=removal.url, source=order.source or job_id, lane=order.lane,
                collection=order.collection or self._collection, document_id=removal.document_id,
                domain=removal.domain, action=Action.DELETE,
            )
            for removal in removals
        ]  # fmt: skip
        job_id = await self._commit(self._job(order, job_id), items, order.delivery, progress)
        return _accepted(job_id, len(items), [])

    async def end_crawl(self, crawl_id: str, event_type: str) -> None:
        """Record how a crawl ended, which pruning depends on."""
        await record_crawl_end(self._pool, crawl_id, event_type)

    def _job(self, order: Order, job_id: str) -> NewJob:
        return NewJob(
            job_id=job_id,
            kind=order.kind,
            lane=order.lane,
            collection=order.collection or self._collection,
            timeout=self._timeout,
            crawl_id=order.crawl_id,
            callback_url=order.callback_url,
            request_id=order.request_id,
            traceparent=self._tracing.traceparent(),
        )

    def _item(self, order: Order, document: Document | RejectedDocument, source: str) -> NewItem:
        if isinstance(document, RejectedDocument):
            return NewItem(
                url=document.url,
                source=source,
                lane=order.lane,
                collection=order.collection or self._collection,
                code=document.code,
                error=document.error,
            )
        collection = document.collection or order.collection or self._collection
        return NewItem(
            url=document.url,
            source=source,
            lane=document.lane or order.lane,
            collection=collection,
            document_id=document_id(collection, document.canonical_url),
            domain=domain_of(document.canonical_url),
            body=encode_payload(StoredDocument(markdown=document.markdown, page=document.page)),
        )

    async def _commit(
        self,
        job: NewJob,
        items: Sequence[NewItem],
        delivery: DeliveryKey | None,
        progress: Progress,
    ) -> str:
        try:
            for collection in {item.collection for item in items} - self._known_collections:
                await self._targets.ensure(collection)
                self._known_collections.add(collection)
            job_id = await accept(self._pool, job, items, delivery, progress)
        except Exception as error:
            if is_postgres_unavailable(error):
                raise DependencyError("postgres", str(error) or type(error).__name__) from error
            raise
        if job_id == job.job_id:  # else this is a repeat, and the job is that of the first delivery
            self._report(job, items)
        return job_id

    def _report(self, job: NewJob, items: Sequence[NewItem]) -> None:
        for item in items:
            self._metrics.accepted.labels(item.lane).inc()
        log.info(
            "Job accepted", job_id=job.job_id, crawl_id=job.crawl_id, kind=job.kind, lane=job.lane,
            documents=len(items), rejected=sum(item.error is not None for item in items),
        )  # fmt: skip


def _accepted(job_id: str, documents: int, rejected: list[RejectedDocument]) -> Accepted:
    return Accepted(
        job_id=job_id, documents=documents, rejected=rejected, status_url=f"/api/jobs/{job_id}"
    )
