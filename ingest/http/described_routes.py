"""What the routes of the API take and answer, for the OpenAPI document. docs/api.md says it for people.

Left out are the page with its files and sessions, and the endless stream of events that only the page reads.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta

from ingest.documents.acceptance import Accepted
from ingest.http.letter_requests import DropRequest, ListRequest, ReplayRequest
from ingest.http.routes.collections import Collection, CollectionList, NewCollection
from ingest.http.routes.dead_letters import Dropped, Replayed
from ingest.http.routes.documents import FoundDocument, Pruned, PruneRequest
from ingest.http.routes.jobs import Cancelled, Retried
from ingest.http.routes.reindex import CancelledReindex, DroppedTargets, ReindexList, ReindexRequest, RollbackRequest
from ingest.inspection.history import History
from ingest.inspection.operations import OperationReport
from ingest.inspection.operator import Claimed, DeadLettered, Taken
from ingest.inspection.streams import PendingPage, StreamStates
from ingest.inspection.watch import Overview
from ingest.jobs.dead_letters import DeadLetterDetails, DeadLetterList
from ingest.jobs.reindexes import ReindexState
from ingest.jobs.stats import CrawlStats, Stats
from ingest.jobs.store import JobList, JobPage
from shared.jobs.model import JobStatus
from shared.pipeline.lanes import Lane
from shared.service.http import HealthReport, Liveness, Readiness
from shared.service.settings import Seconds

_Limit = Annotated[int, Meta(ge=1, le=1000)]


class LaneAndCollection(msgspec.Struct):
    lane: Lane | None = None
    collection: str | None = None


class IndexQuery(LaneAndCollection):
    callback_url: str | None = None


class JobsQuery(msgspec.Struct):
    status: JobStatus | None = None
    crawl_id: str | None = None
    older_than: Seconds | None = None
    after: str | None = None
    limit: _Limit = 100


class JobQuery(msgspec.Struct):
    wait: Seconds | None = None
    offset: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    limit: _Limit = 1000


class EventsQuery(msgspec.Struct):
    last_event_id: str | None = None


class PendingQuery(msgspec.Struct):
    idle_over: Seconds | None = None
    after: str | None = None
    limit: _Limit = 100


class EntryQuery(msgspec.Struct):
    lane: Lane | None = None
    consumer: str | None = None


class DeadLetterQuery(EntryQuery):
    reason: str | None = None


class OperationsQuery(msgspec.Struct):
    hours: Annotated[float, Meta(gt=0, le=24 * 366)] = 24.0
    operation_type: str | None = None
    document_url: str | None = None
    success: bool | None = None
    limit: Annotated[int, Meta(ge=0, le=1000)] = 100


class DocumentQuery(msgspec.Struct):
    url: str
    collection: str | None = None


class DeleteQuery(DocumentQuery):
    lane: Lane | None = None
    callback_url: str | None = None


class CollectionQuery(msgspec.Struct):
    collection: str


class ReindexesQuery(msgspec.Struct):
    collection: str | None = None


class StatsQuery(msgspec.Struct):
    crawl_id: str | None = None


class DocumentRequest(msgspec.Struct):
    """More names are taken, in camelCase too; docs/api.md has them all."""

    url: str
    markdown: str
    title: str | None = None
    description: str | None = None
    language: str | None = None
    country: str | None = None
    metadata: dict[str, Any] | None = None
    lane: Lane | None = None
    collection: str | None = None


class DocumentsRequest(msgspec.Struct):
    documents: list[Any]  # each as DocumentRequest; a bad one is rejected, the others go on
    lane: Lane | None = None
    collection: str | None = None
    callback_url: str | None = None


class WebhookRequest(msgspec.Struct):
    type: str | msgspec.UnsetType = UNSET
    id: str | msgspec.UnsetType = UNSET
    success: bool | msgspec.UnsetType = UNSET
    data: Any = UNSET
    metadata: Any = UNSET


class Acknowledged(msgspec.Struct):
    status: str
    type: str | None


class JobEvent(msgspec.Struct):
    """One server-sent event; `data` is JSON: the job without its results, or one result."""

    event: Literal["progress", "result", "end"]
    data: str
    id: str | msgspec.UnsetType = UNSET  # how many results were sent, or `end`
    retry: int | msgspec.UnsetType = UNSET  # milliseconds


class SearchQuestion(msgspec.Struct):
    query: Annotated[str, Meta(min_length=1, max_length=8000)]
    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    offset: Annotated[int, Meta(ge=0)] = 0
    mode: str = "hybrid"
    collapse: str = "document"
    collection: str | None = None
    filters: dict[str, Any] | msgspec.UnsetType = UNSET


class SearchAnswer(msgspec.Struct):
    results: list[dict[str, Any]]
    total: int
    query: str
    mode: str
    took_ms: float
    degraded: bool


Answers = Mapping[int, type | tuple[type, ...]]  # by status; several types are alternatives


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path."""

    method: str
    path: str
    summary: str
    answers: Answers
    errors: tuple[int, ...] = ()
    query: type | None = None
    body: type | None = None
    is_body_required: bool = True
    is_open: bool = False
    media: str = "application/json"


def _route(line: str, summary: str, answers: Answers, errors: tuple[int, ...] = (), **options: Any) -> Route:
    method, path = line.split()
    return Route(method=method, path=path, summary=summary, answers=answers, errors=errors, **options)


_TAKEN: Answers = {202: Accepted}
_MAKES_JOB = (400, 413, 422)
_REFUSED = (400, 409, 413, 422)

ROUTES = (
    _route("POST /api/webhook/firecrawl", "Take a webhook of Firecrawl", {202: Accepted, 200: Acknowledged},
           _MAKES_JOB, query=LaneAndCollection, body=WebhookRequest),
    _route("POST /api/index", "Index one document", _TAKEN, _MAKES_JOB, query=IndexQuery, body=DocumentRequest),
    _route("POST /api/index/batch", "Index many documents", _TAKEN, _MAKES_JOB, query=IndexQuery,
           body=DocumentsRequest),
    _route("GET /api/documents", "Where is my page", {200: FoundDocument}, (404, 422), query=DocumentQuery),
    _route("GET /api/stats", "Counts of everything, or of one crawl", {200: (Stats, CrawlStats)}, (404, 422),
           query=StatsQuery),
    _route("POST /api/prune", "Remove what a crawl did not see again", {202: Pruned, 200: Pruned},
           (400, 404, 409, 413, 422), body=PruneRequest),
    _route("DELETE /api/documents", "Remove a document from search", _TAKEN, (422,), query=DeleteQuery),
    _route("GET /api/jobs", "List jobs", {200: JobList}, (422,), query=JobsQuery),
    _route("GET /api/jobs/{job_id}", "One job with its results", {200: JobPage}, (404, 422), query=JobQuery),
    _route("GET /api/jobs/{job_id}/events", "A job as server-sent events", {200: JobEvent, 204: type(None)}, (404, 422),
           query=EventsQuery, media="text/event-stream"),
    _route("POST /api/jobs/{job_id}/retry", "Try again what failed", {202: Retried}, (404,)),
    _route("DELETE /api/jobs/{job_id}", "Cancel what has not started", {200: Cancelled}, (404,)),
    _route("GET /api/streams", "The streams of all stages", {200: StreamStates}),
    _route("GET /api/streams/{stage}/pending", "Who holds what", {200: PendingPage}, (404, 422), query=PendingQuery),
    _route("POST /api/streams/{stage}/pending/{entry_id}/claim", "Hold an entry for one lease", {200: Claimed},
           (404, 409, 422), query=EntryQuery),
    _route("POST /api/streams/{stage}/pending/{entry_id}/release", "Give an entry to the next worker", {200: Taken},
           (404, 409, 422), query=EntryQuery),
    _route("POST /api/streams/{stage}/pending/{entry_id}/dead-letter", "Give up the documents of an entry",
           {200: DeadLettered}, (404, 409, 422), query=DeadLetterQuery),
    _route("GET /api/pipeline", "The pipeline as it was seen last", {200: Overview}),
    _route("GET /api/pipeline/history", "The last hour by minutes", {200: History}),
    _route("GET /api/dead-letters", "List dead letters", {200: DeadLetterList}, (422,), query=ListRequest),
    _route("GET /api/dead-letters/{id}", "One dead letter", {200: DeadLetterDetails}, (404,)),
    _route("POST /api/dead-letters/replay", "Try dead letters again", {202: Replayed, 200: Replayed}, (400, 413, 422),
           body=ReplayRequest, is_body_required=False),
    _route("DELETE /api/dead-letters", "Drop dead letters", {200: Dropped}, (422,), query=DropRequest),
    _route("GET /api/collections", "List collections", {200: CollectionList}),
    _route("POST /api/collections", "Make a collection with settings of its own", {201: Collection}, _REFUSED,
           body=NewCollection),
    _route("GET /api/reindex", "How far reindexes are", {200: ReindexList}, (422,), query=ReindexesQuery),
    _route("POST /api/reindex", "Change the model or the chunking of a collection", {202: ReindexState},
           (*_REFUSED, 404), body=ReindexRequest),
    _route("DELETE /api/reindex", "Give a reindex up", {200: CancelledReindex}, (404, 422), query=CollectionQuery),
    _route("POST /api/reindex/rollback", "Go back to what served the collection before", {202: ReindexState},
           (*_REFUSED, 404), body=RollbackRequest),
    _route("POST /api/reindex/skip-failed", "Switch without what cannot be copied", {200: ReindexState}, (404, 422),
           query=CollectionQuery),
    _route("DELETE /api/reindex/retired", "Drop what is kept for a rollback", {200: DroppedTargets}, (422,),
           query=CollectionQuery),
    _route("GET /api/metrics/operations", "Times and failures of operations", {200: OperationReport}, (422,),
           query=OperationsQuery),
    _route("POST /api/search", "Search", {200: SearchAnswer}, (400, 413, 422), body=SearchQuestion),
    _route("GET /health", "What the service needs, and how it is", {200: HealthReport}, is_open=True),
    _route("GET /livez", "Whether the process answers", {200: Liveness}, is_open=True),
    _route("GET /readyz", "Whether it takes work", {200: Readiness}, (503,), is_open=True),
    _route("GET /metrics", "Prometheus' text format", {200: str}, is_open=True, media="text/plain"),
    _route("GET /openapi.json", "This document", {200: dict}, is_open=True),
)  # fmt: skip
