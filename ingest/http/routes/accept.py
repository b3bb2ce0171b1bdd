"""The routes that accept work: the webhook, single documents, bulk loads, deletes.

Parsing is elsewhere.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
import structlog
from aiohttp import web
from msgspec import UNSET

from ingest.documents.acceptance import Acceptance, Accepted, Order
from ingest.documents.bulk import parse_batch, parse_ndjson, parse_single
from ingest.documents.canonical import canonical_url, domain_of
from ingest.documents.document import Document, Limits, RejectedDocument
from ingest.documents.firecrawl import DeliveryKind, EventKind, WebhookEvent, parse_webhook
from ingest.http.app import require
from ingest.http.bodies import Bodies
from ingest.http.deadline import DEADLINE
from ingest.http.parameters import CallbackUrl, PageUrl, PlacementQuery
from ingest.jobs.accept import DeliveryKey
from ingest.upkeep.public_address import ForbiddenAddressError, may_be_public
from shared.jobs.model import JobKind
from shared.pipeline.lanes import Lane
from shared.service.auth import Authenticator, Verdict
from shared.service.errors import RejectedError
from shared.service.http import REQUEST_ID, json_response
from shared.service.parameters import unprocessable
from shared.service.routes import route

log = structlog.get_logger()

T = TypeVar("T")

MAX_DOCUMENT_REQUEST_BYTES = 16 * 1024 * 1024
# Of a body without any id. Short: a page that returned to an old text looks like a repeat.
_BODY_HASH_WINDOW_S = 30 * 60.0
_MAX_KEY_CHARACTERS = 256
_THREAD_BYTES = 256 * 1024  # larger bodies are parsed off the event loop
_BODIES = 2  # in memory at once, of the largest size; of usual webhooks, thousands
_INDEX_SOURCE = "api"


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Limits on requests, and how long their repeats are recognised."""

    limits: Limits
    max_body_bytes: int
    deduplication_window: float  # seconds; of an Idempotency-Key
    may_call_private: bool = False  # callbacks may go to private addresses


class OrderQuery(PlacementQuery, frozen=True, kw_only=True):
    callback_url: CallbackUrl | None = None


class DeleteQuery(OrderQuery, frozen=True, kw_only=True):
    url: PageUrl


class DocumentRequest(msgspec.Struct):
    """Only for the OpenAPI document: see docs/api.md for all names, which may be in camelCase."""

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
    """Only for the OpenAPI document."""

    documents: list[Any]  # each as DocumentRequest; an invalid one is rejected, the others continue
    lane: Lane | None = None
    collection: str | None = None
    callback_url: str | None = None


class WebhookRequest(msgspec.Struct):
    """Only for the OpenAPI document: Firecrawl's versions differ."""

    type: str | msgspec.UnsetType = UNSET
    id: str | msgspec.UnsetType = UNSET
    success: bool | msgspec.UnsetType = UNSET
    data: Any = UNSET
    metadata: Any = UNSET


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an event without documents."""

    status: str = "acknowledged"
    type: str | None


class AcceptApi:
    """Handlers of the webhook, of /api/index and of DELETE /api/documents."""

    def __init__(self, acceptance: Acceptance, authenticator: Authenticator, rules: Rules) -> None:
        self._acceptance = acceptance
        self._authenticator = authenticator
        self._rules = rules
        self._limits = rules.limits
        # Two budgets: requests with forged signatures can exhaust only the second.
        budget = _BODIES * rules.max_body_bytes
        self._bodies_by_token = Bodies(budget, may_be_compressed=True)
        self._bodies_by_signature = Bodies(budget, share=rules.max_body_bytes)

    @route(
        "POST /api/webhook/firecrawl",
        "Accept a webhook of Firecrawl",
        {202: Accepted, 200: Acknowledged},
        body=WebhookRequest,
        is_lenient=True,
    )
    async def post_webhook(self, request: web.Request, query: PlacementQuery) -> web.Response:
        """A Firecrawl webhook: 202 with a job if it carries documents, else 200."""
        signature = request.headers.get("X-Firecrawl-Signature")
        bodies = self._bodies_by_token if signature is None else self._bodies_by_signature
        async with bodies.received(request, self._rules.max_body_bytes) as body:
            if signature is not None:
                require(self._authenticator.check_signature(signature, body))
            event = await _parse(request, body, lambda: parse_webhook(body, self._limits))
            if signature is None or self._has_token(request):
                key = self._explicit_key(request, body)
            else:  # a captured webhook can be sent again with another head
                _note_unsigned(request, event)
                query, key = PlacementQuery(), None
            answer = await self._answer_event(request, event, query, key)
            if event.ending is not None and event.crawl_id is not None:
                await self._acceptance.end_crawl(event.crawl_id, event.ending)
            return answer

    def _has_token(self, request: web.Request) -> bool:
        authorization = request.headers.get("Authorization")
        return self._authenticator.check_bearer(authorization) is Verdict.ALLOWED

    async def _answer_event(
        self,
        request: web.Request,
        event: WebhookEvent,
        query: PlacementQuery,
        explicit_key: DeliveryKey | None,
    ) -> web.Response:
        for problem in event.ignored:
            log.warning("Webhook override ignored", reason=problem, crawl_id=event.crawl_id)
        if event.kind is not EventKind.DOCUMENTS or not event.documents:
            log.info(
                "Webhook acknowledged", type=event.type, kind=event.kind, crawl_id=event.crawl_id
            )
            return json_response(Acknowledged(type=event.type))
        order = Order(
            kind=JobKind.INDEX_BATCH,
            lane=query.lane or event.lane or Lane.NORMAL,
            source=event.crawl_id,
            collection=query.collection or event.collection,
            crawl_id=event.crawl_id,
            request_id=request[REQUEST_ID],
            delivery=explicit_key or self._implicit_key(event),
        )
        return await self._accept(request, order, event.documents)

    @route("POST /api/index", "Index one document", {202: Accepted}, body=DocumentRequest)
    async def post_document(self, request: web.Request, query: OrderQuery) -> web.Response:
        """One document. An invalid one is 422 and creates no job."""
        limit = min(MAX_DOCUMENT_REQUEST_BYTES, self._rules.max_body_bytes)
        async with self._bodies_by_token.received(request, limit) as body:
            document = await _parse(request, body, lambda: parse_single(body, self._limits))
            order = self._order(
                request, JobKind.INDEX_DOCUMENT, body, query, lane=Lane.HIGH, source=_INDEX_SOURCE
            )
            return await self._accept(request, order, [document])

    @route("POST /api/index/batch", "Index many documents", {202: Accepted}, body=DocumentsRequest)
    async def post_batch(self, request: web.Request, query: OrderQuery) -> web.Response:
        """Many documents, as one JSON object or as NDJSON."""
        is_lines = "ndjson" in request.content_type or "jsonl" in request.content_type
        parse = parse_ndjson if is_lines else parse_batch
        async with self._bodies_by_token.received(request, self._rules.max_body_bytes) as body:
            bulk = await _parse(request, body, lambda: parse(body, self._limits))
            order = self._order(
                request,
                JobKind.INDEX_BATCH,
                body,
                query,
                lane=bulk.lane or Lane.LOW,
                collection=bulk.collection,
                callback_url=bulk.callback_url,
            )
            return await self._accept(request, order, bulk.documents)

    @route("DELETE /api/documents", "Remove a document from search", {202: Accepted})
    async def delete_document(self, request: web.Request, query: DeleteQuery) -> web.Response:
        """Remove the document of a URL from search: 202 with a job."""
        key = request.query_string.encode()
        order = self._order(
            request, JobKind.DELETE_DOCUMENT, key, query, lane=Lane.HIGH, source=_INDEX_SOURCE
        )
        return _accepted(
            await self._acceptance.delete(
                order, query.url, canonical_url(query.url), request[DEADLINE].start
            )
        )

    def _order(  # noqa: PLR0913 - the body's own choices are optional
        self, request: web.Request, kind: JobKind, body: bytes, query: OrderQuery, *, lane: Lane,
        source: str | None = None, collection: str | None = None, callback_url: str | None = None,
    ) -> Order:  # fmt: skip
        return Order(
            kind=kind,
            lane=query.lane or lane,
            source=source,
            collection=collection or query.collection,
            callback_url=self._allowed_callback(callback_url or query.callback_url),
            request_id=request[REQUEST_ID],
            delivery=self._explicit_key(request, body),
        )

    async def _accept(
        self, request: web.Request, order: Order, documents: Sequence[Document | RejectedDocument]
    ) -> web.Response:
        return _accepted(await self._acceptance.index(order, documents, request[DEADLINE].start))

    def _allowed_callback(self, callback_url: str | None) -> str | None:
        """Refuse a URL whose address must not be called; a name is resolved and checked when it is
        called.
        """
        if callback_url is None or self._rules.may_call_private:
            return callback_url
        if not may_be_public(domain_of(canonical_url(callback_url))):
            raise unprocessable(f"invalid value for `callback_url`: {ForbiddenAddressError()}")
        return callback_url

    def _explicit_key(self, request: web.Request, body: bytes) -> DeliveryKey | None:
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return None
        if not 0 < len(key) <= _MAX_KEY_CHARACTERS or not key.isprintable():
            raise unprocessable(
                "invalid value for the header `Idempotency-Key`: expected 1 to "
                f"{_MAX_KEY_CHARACTERS} printable characters"
            )
        digest = hashlib.sha256(request.path_qs.encode() + b"\0" + body).digest()
        window = self._rules.deduplication_window
        return DeliveryKey(
            scope="key", key=key, request_hash=digest, window=window, is_explicit=True
        )

    @staticmethod
    def _implicit_key(event: WebhookEvent) -> DeliveryKey:
        delivery = event.delivery
        is_weak = delivery.kind is DeliveryKind.BODY and event.crawl_id is None
        return DeliveryKey(
            scope=f"webhook:{delivery.kind}",
            key=delivery.key,
            request_hash=b"",
            window=_BODY_HASH_WINDOW_S if is_weak else None,
        )


async def _parse(request: web.Request, body: bytes, parse: Callable[[], T]) -> T:
    """Run a parser, in a thread for a large body. A rejected document is 422."""
    deadline = request[DEADLINE]
    try:
        if len(body) < _THREAD_BYTES:
            return parse()
        deadline.lift()  # parsing takes as long with Postgres as without
        parsed = await asyncio.to_thread(parse)
    except RejectedError as error:
        raise unprocessable(f"{error.code}: {error.reason}") from error
    deadline.start()
    return parsed


def _note_unsigned(request: web.Request, event: WebhookEvent) -> None:
    """Log what a webhook with only a signature asks for outside its body."""
    unsigned = {"lane", "collection"} & request.query.keys()
    if "Idempotency-Key" in request.headers:
        unsigned.add("Idempotency-Key")
    for name in sorted(unsigned):
        reason = f"`{name}` is not signed: send the API secret, too"
        log.warning("Webhook override ignored", reason=reason, crawl_id=event.crawl_id)


def _accepted(accepted: Accepted) -> web.Response:
    return json_response(accepted, 202, {"Location": accepted.status_url})
