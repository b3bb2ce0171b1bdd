"""The routes about documents that are there: where is my page, remove it, remove what a crawl did not see, counts."""

from typing import Annotated

import msgspec
import structlog
from aiohttp import web

from ingest.documents.acceptance import Acceptance, Order
from ingest.documents.decoding import decode
from ingest.documents.override import parse_collection
from ingest.http.deadline import DEADLINE, LONG
from ingest.http.queries import collection_query, unprocessable, url_query
from ingest.jobs.documents import DocumentState, DocumentStore
from ingest.jobs.prune import Gone, Scope, Site, UnfinishedCrawlError, find_gone
from ingest.jobs.stats import StatsStore
from shared.jobs.model import JobKind
from shared.pipeline.ids import document_id
from shared.pipeline.lanes import Lane
from shared.service.clients import PostgresPool
from shared.service.errors import RejectedError
from shared.service.http import REQUEST_ID, ProblemError, json_response

log = structlog.get_logger()

_MAX_SHOWN = 100  # pages in the answer to a prune

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500, pattern=r"\A[^\x00]*\Z")]


class PruneRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which crawl; a misspelt name is an error, since it might have been `dry_run`."""

    crawl_id: _Text
    collection: str | None = None
    domains: list[_Text] | None = None
    url_prefix: _Text | None = None
    assume_completed: bool = False
    dry_run: bool = False

    @property
    def scope(self) -> Scope:
        return Scope(
            crawl_id=self.crawl_id, domains=self.domains, url_prefix=self.url_prefix,
            assume_completed=self.assume_completed,
        )  # fmt: skip


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What was, or would be, removed."""

    crawl_id: str
    dry_run: bool
    pruned: int
    sites: list[Site]
    urls: list[str]  # the first ones
    job_id: str | None = None
    status_url: str | None = None


class FoundDocument(DocumentState, frozen=True, kw_only=True):
    """Where a document is, with the URL by which it is known."""

    canonical_url: str


class DocumentsApi:
    """Handlers of GET /api/documents, POST /api/prune and GET /api/stats."""

    def __init__(self, pool: PostgresPool, acceptance: Acceptance, *, collection: str) -> None:
        self._pool = pool
        self._documents = DocumentStore(pool)
        self._stats = StatsStore(pool)
        self._acceptance = acceptance
        self._collection = collection

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/api/documents", self.get_document)
        app.router.add_post("/api/prune", self.post_prune)
        app.router.add_get("/api/stats", self.get_stats)

    async def get_document(self, request: web.Request) -> web.Response:
        """Where the document of a URL is: its last delivery, stage by stage, and what search shows."""
        _, canonical = url_query(request)
        collection = collection_query(request) or self._collection
        found = await self._documents.find(collection, document_id(collection, canonical))
        if found is None:
            raise ProblemError(404, "Not Found", f"there is no document {canonical!r} in the collection {collection!r}")
        return json_response(FoundDocument(canonical_url=canonical, **msgspec.structs.asdict(found)))

    async def get_stats(self, request: web.Request) -> web.Response:
        """Counts of everything, or of one crawl."""
        request[DEADLINE].start(LONG)
        crawl_id = request.query.get("crawl_id")
        stats = await self._stats.all() if crawl_id is None else await self._stats.crawl(crawl_id)
        if stats is None:
            raise _no_crawl(str(crawl_id))
        return json_response(stats)

    async def post_prune(self, request: web.Request) -> web.Response:
        """Remove the pages of a crawl's sites that it did not see again, or only say which these are."""
        body = await request.read()
        request[DEADLINE].start(LONG)
        wanted = decode(_decoder, body)
        collection = _collection(wanted.collection) or self._collection
        try:
            gone = await find_gone(self._pool, wanted.scope, collection)
        except UnfinishedCrawlError as error:
            raise ProblemError(409, "Conflict", str(error)) from error
        if gone is None:
            raise _no_crawl(wanted.crawl_id)
        if wanted.dry_run or not gone.pages:
            return json_response(_pruned(wanted, gone))
        order = Order(
            kind=JobKind.DELETE_DOCUMENT, lane=Lane.LOW, source=None, collection=collection,
            request_id=request[REQUEST_ID],
        )  # fmt: skip
        accepted = await self._acceptance.remove(order, gone.pages, request[DEADLINE].start)
        log.info("Pages pruned", crawl_id=wanted.crawl_id, pages=len(gone.pages), job_id=accepted.job_id)
        answer = _pruned(wanted, gone, job_id=accepted.job_id, status_url=accepted.status_url)
        return json_response(answer, 202, {"Location": accepted.status_url})


_decoder = msgspec.json.Decoder(PruneRequest)


def _collection(text: str | None) -> str | None:
    try:
        return parse_collection(text)
    except RejectedError as error:
        raise unprocessable(error.reason) from error


def _pruned(wanted: PruneRequest, gone: Gone, **job: str) -> Pruned:
    return Pruned(
        crawl_id=wanted.crawl_id, dry_run=wanted.dry_run, pruned=len(gone.pages), sites=gone.sites,
        urls=[page.url for page in gone.pages[:_MAX_SHOWN]], **job,
    )  # fmt: skip


def _no_crawl(crawl_id: str) -> ProblemError:
    return ProblemError(404, "Not Found", f"there is no job of a crawl {crawl_id[:64]!r}")
