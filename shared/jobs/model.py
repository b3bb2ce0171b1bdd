"""Jobs and items, as Postgres stores them and the API shows them."""

import enum

import msgspec

from shared.pipeline.lanes import Lane
from shared.pipeline.messages import Action


class JobKind(enum.StrEnum):
    INDEX_DOCUMENT = "index_document_job"  # POST /api/index: one document
    INDEX_BATCH = "index_document_batch_job"  # webhook and bulk
    DELETE_DOCUMENT = "delete_document_job"
    REINDEX = "reindex_job"  # known documents, for a lost store or another target


class JobStatus(enum.StrEnum):
    QUEUED = "queued"  # accepted; no stage has started any of its documents
    RUNNING = "running"
    SUCCEEDED = "succeeded"  # every document
    PARTIAL = "partial"  # some documents
    FAILED = "failed"  # none succeeded, at least one failed
    CANCELLED = "cancelled"  # all that did not succeed were cancelled

    @property
    def is_terminal(self) -> bool:
        return self not in {JobStatus.QUEUED, JobStatus.RUNNING}


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job to be accepted."""

    job_id: str
    kind: JobKind
    lane: Lane
    collection: str
    timeout: float  # seconds
    crawl_id: str | None = None
    callback_url: str | None = None
    request_id: str | None = None
    traceparent: str | None = None  # of the request; the stages continue its trace


class NewItem(msgspec.Struct, frozen=True, kw_only=True):
    """One document of a new job. One with an error was rejected by ingest."""

    url: str | None
    source: str
    lane: Lane
    collection: str
    document_id: str | None = None
    domain: str = ""
    action: Action = Action.INDEX
    body: bytes | None = None  # the document as JSON; None for deletes and rejected documents
    code: str | None = None
    error: str | None = None


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """A document to remove from search."""

    document_id: str
    url: str
    domain: str


class FinishedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job whose last item has just ended: the fields of its log line and its metrics row."""

    job_id: str
    kind: str
    status: JobStatus
    crawl_id: str | None
    request_id: str | None
    total: int
    succeeded: int
    failed: int
    cancelled: int
    chunks: int
    inputs_saved: int
    duration_ms: float
