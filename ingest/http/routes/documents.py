"""The routes of known documents: state of one, prune what a crawl no longer found, counts."""

import msgspec
import structlog
from aiohttp import web

from ingest.documents.acceptance import Acceptance, Accepted, Order
from ingest.documents.canonical import canonical_url
from ingest.http.deadline import DEADLINE, LONG
from ingest.http.parameters import PageUrl
from ingest.jobs.documents import DocumentState, DocumentStore
from ingest.jobs.prune import Gone, Scope, Site, UnfinishedCrawlError, find_gone
from ingest.jobs.stats import CrawlStats, Stats, StatsStore
from shared.jobs.model import JobKind
from shared.pipeline.ids import document_id
from shared.pipeline.lanes import Lane
from shared.service.clients import PostgresPool
from shared.service.http import REQUEST_ID, ProblemError, json_response
from shared.service.parameters import CollectionName, Text
from shared.service.routes import route

log = structlog.get_logger()

_MAX_SHOWN = 100  # pages in the answer to a prune


class DocumentQuery(msgspec.Struct, frozen=True, kw_only=True):
    url: PageUrl
    collection: CollectionName | None = None


class StatsQuery(msgspec.Struct, frozen=True, kw_only=True):
    crawl_id: Text | None = None


class PruneRequest(Scope, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A crawl, and the collection to prune. A misspelt name is an error: it could be `dry_run`."""

    collection: CollectionName | None = None
    dry_run: bool = False


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """The pages that were removed, or that a dry run would remove."""

    crawl_id: str
    dry_run: bool
    pruned: int
    sites: list[Site]
    urls: list[str]  # the first ones
    job_id: str | None = None
    status_url: str | None = None


class FoundDocument(DocumentState, frozen=True, kw_only=True):
    """The state of a document, with the URL that identifies it."""

    canonical_url: str


class DocumentsApi:
    """Handlers of GET /api/documents, POST /api/prune and GET /api/stats."""

    def __init__(self, pool: PostgresPool, acceptance: Acceptance, *, collection: str) -> None:
        self._pool = pool
        self._documents = DocumentStore(pool)
        self._stats = StatsStore(pool)
        self._acceptance = acceptance
        self._collection = collection

    @route("GET /api/documents", "The state of one document", {200: FoundDocument}, errors=(404,))
    async def get_document(self, _request: web.Request, query: DocumentQuery) -> web.Response:
        """The last delivery of the document, stage by stage, and the version that search shows."""
        canonical = canonical_url(query.url)
        collection = query.collection or self._collection
        found = await self._documents.find(collection, document_id(collection, canonical))
        if found is None:
            raise ProblemError(
                404,
                "Not Found",
                f"there is no document {canonical!r} in the collection {collection!r}",
            )
        return json_response(
            FoundDocument(canonical_url=canonical, **msgspec.structs.asdict(found))
        )

    @route(
        "GET /api/stats",
        "Counts of everything, or of one crawl",
        {200: (Stats, CrawlStats)},
        errors=(404,),
    )
    async def get_stats(self, request: web.Request, query: StatsQuery) -> web.Response:
        """Counts of everything, or of one crawl."""
        request[DEADLINE].start(LONG)
        if query.crawl_id is None:
            return json_response(await self._stats.all())
        stats = await self._stats.crawl(query.crawl_id)
        if stats is None:
            raise _no_crawl(query.crawl_id)
        return json_response(stats)

    @route(
        "POST /api/prune",
        "Remove what a crawl no longer found",
        {202: Pruned, 200: Pruned},
        errors=(404, 409),
    )
    async def post_prune(self, request: web.Request, body: PruneRequest) -> web.Response:
        """Remove the pages that a crawl no longer found; a dry run only lists them."""
        request[DEADLINE].start(LONG)
        collection = body.collection or self._collection
        try:
            gone = await find_gone(self._pool, body, collection)
        except UnfinishedCrawlError as error:
            raise ProblemError(409, "Conflict", str(error)) from error
        if gone is None:
            raise _no_crawl(body.crawl_id)
        if body.dry_run or not gone.pages:
            return json_response(_pruned(body, gone))
        accepted = await self._remove(request, gone, collection)
        log.info(
            "Pages pruned", crawl_id=body.crawl_id, pages=len(gone.pages), job_id=accepted.job_id
        )
        answer = _pruned(body, gone, job_id=accepted.job_id, status_url=accepted.status_url)
        return json_response(answer, 202, {"Location": accepted.status_url})

    async def _remove(self, request: web.Request, gone: Gone, collection: str) -> Accepted:
        order = Order(
            kind=JobKind.DELETE_DOCUMENT, lane=Lane.LOW, source=None, collection=collection,
            request_id=request[REQUEST_ID],
        )  # fmt: skip
        return await self._acceptance.remove(order, gone.pages, request[DEADLINE].start)


def _pruned(wanted: PruneRequest, gone: Gone, **job: str) -> Pruned:
    return Pruned(
        crawl_id=wanted.crawl_id, dry_run=wanted.dry_run, pruned=len(gone.pages), sites=gone.sites,
        urls=[page.url for page in gone.pages[:_MAX_SHOWN]], **job,
    )  # fmt: skip


def _no_crawl(crawl_id: str) -> ProblemError:
    return ProblemError(404, "Not Found", f"there is no job of a crawl {crawl_id[:64]!r}")
