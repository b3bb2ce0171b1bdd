"""From parsed documents to a durable job: the only way in, for webhooks and API calls alike."""

import asyncio
import uuid
from collections.abc import Sequence

import msgspec
import structlog

from ingest.canonical import domain_of
from ingest.document import Document, RejectedDocument
from shared.clients import PostgresPool, is_postgres_away
from shared.errors import DependencyError
from shared.ids import document_id
from shared.jobs.accept import DeliveryKey, accept
from shared.jobs.model import JobKind, NewItem, NewJob
from shared.jobs.payloads import encode_payload
from shared.jobs.targets import Targets
from shared.messages import Action, Lane, Page, StoredDocument
from shared.metrics import Metrics

log = structlog.get_logger()

# Senders want an answer; the transaction itself goes on. A large load takes longer by itself: 60 MB took 3 s.
_COMMIT_TIMEOUT = 2.5
_COMMIT_BYTES_PER_SECOND = 5_000_000


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks for, besides its documents."""

    kind: JobKind
    lane: Lane
    source: str | None  # None: the job's id, so that a bulk load shares fairly as a whole
    collection: str | None = None
    crawl_id: str | None = None
    callback_url: str | None = None
    request_id: str | None = None
    delivery: DeliveryKey | None = None


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to who sent documents: they are durable."""

    job_id: str
    documents: int
    rejected: list[RejectedDocument]
    status_url: str
    status: str = "queued"


class Acceptance:
    """Accepts work. Raises DependencyError when Postgres is away or too slow, IdempotencyConflictError for a key."""

    def __init__(self, pool: PostgresPool, metrics: Metrics, *, collection: str, timeout: float) -> None:
        self._pool = pool
        self._targets = Targets(pool)
        self._metrics = metrics
        self._collection = collection
        self._timeout = timeout
        self._known_collections: set[str] = set()
        self._commits: set[asyncio.Task[str]] = set()

    async def index(self, order: Order, documents: Sequence[Document | RejectedDocument]) -> Accepted:
        """Accept documents to index; the rejected ones become failed items of the job."""
        job_id = str(uuid.uuid4())
        source = order.source or job_id
        items = [self._item(order, document, source) for document in documents]
        rejected = [document for document in documents if isinstance(document, RejectedDocument)]
        for document in rejected:
            log.warning("Failed to parse document payload", position=document.position, url=document.url,
                        error=document.error)  # fmt: skip
        for kept in documents:
            if isinstance(kept, Document) and kept.metadata_omitted:
                log.warning("Metadata left out", url=kept.url, entries=kept.metadata_omitted)
        job_id = await self._commit(self._job(order, job_id), items, order.delivery)
        return _accepted(job_id, len(items), rejected)

    async def delete(self, order: Order, url: str, canonical: str) -> Accepted:
        """Accept the removal of one document."""
        collection = order.collection or self._collection
        item = NewItem(
            url=url, source=order.source or "api", lane=order.lane, collection=collection,
            document_id=document_id(collection, canonical), domain=domain_of(canonical), action=Action.DELETE,
        )  # fmt: skip
        job_id = await self._commit(self._job(order, str(uuid.uuid4())), [item], order.delivery)
        return _accepted(job_id, 1, [])

    def _job(self, order: Order, job_id: str) -> NewJob:
        return NewJob(
            job_id=job_id, kind=order.kind, lane=order.lane, collection=order.collection or self._collection,
            timeout=self._timeout, crawl_id=order.crawl_id, callback_url=order.callback_url,
            request_id=order.request_id,
        )  # fmt: skip

    def _item(self, order: Order, document: Document | RejectedDocument, source: str) -> NewItem:
        if isinstance(document, RejectedDocument):
            return NewItem(
                url=document.url, source=source, lane=order.lane, collection=order.collection or self._collection,
                code=document.code, error=document.error,
            )  # fmt: skip
        collection = document.collection or order.collection or self._collection
        return NewItem(
            url=document.url,
            source=source,
            lane=document.lane or order.lane,
            collection=collection,
            document_id=document_id(collection, document.canonical_url),
            domain=domain_of(document.canonical_url),
            body=encode_payload(StoredDocument(markdown=document.markdown, page=_page(document))),
        )

    async def _commit(self, job: NewJob, items: Sequence[NewItem], delivery: DeliveryKey | None) -> str:
        """Commit, shielded from a sender who leaves and from the time-out: half a job is never written."""
        commit = asyncio.create_task(self._write(job, items, delivery), name=f"commit-{job.job_id}")
        self._commits.add(commit)
        commit.add_done_callback(self._commits.discard)
        try:
            size = sum(len(item.body or b"") for item in items)
            async with asyncio.timeout(_COMMIT_TIMEOUT + size / _COMMIT_BYTES_PER_SECOND):
                job_id = await asyncio.shield(commit)
        except Exception as error:
            if is_postgres_away(error):
                raise DependencyError("postgres", str(error) or "no answer in time") from error
            raise
        for item in items if job_id == job.job_id else ():
            self._metrics.accepted.labels(item.lane).inc()
        return job_id

    async def _write(self, job: NewJob, items: Sequence[NewItem], delivery: DeliveryKey | None) -> str:
        for collection in {item.collection for item in items} - self._known_collections:
            await self._targets.ensure(collection)
            self._known_collections.add(collection)
        return await accept(self._pool, job, items, delivery)


def _page(document: Document) -> Page:
    return Page(
        title=document.title, description=document.description, language=document.language, country=document.country,
        is_mobile=document.is_mobile, metadata=document.metadata,
    )  # fmt: skip


def _accepted(job_id: str, documents: int, rejected: list[RejectedDocument]) -> Accepted:
    return Accepted(job_id=job_id, documents=documents, rejected=rejected, status_url=f"/api/jobs/{job_id}")
