"""The routes that take work in: the webhook, single documents, bulk loads, deletes. Parsing is elsewhere."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
import structlog
from aiohttp import web

from ingest.documents.acceptance import Acceptance, Accepted, Order
from ingest.documents.bulk import BulkRequest, parse_batch, parse_ndjson, parse_single
from ingest.documents.canonical import canonical_url, domain_of
from ingest.documents.document import Document, Limits, RejectedDocument
from ingest.documents.firecrawl import DeliveryKind, EventKind, WebhookEvent, parse_webhook
from ingest.http.bodies import Bodies
from ingest.http.deadline import DEADLINE
from ingest.http.queries import callback_query, collection_query, lane_query, unprocessable, url_query
from ingest.jobs.accept import DeliveryKey
from ingest.upkeep.public_address import ForbiddenAddressError, may_be_public
from shared.jobs.model import JobKind
from shared.pipeline.lanes import Lane
from shared.service.auth import Authenticator, Verdict
from shared.service.errors import RejectedError
from shared.service.http import REQUEST_ID, ProblemError, json_response

log = structlog.get_logger()

T = TypeVar("T")

MAX_DOCUMENT_REQUEST_BYTES = 16 * 1024 * 1024
_BODY_HASH_WINDOW = 30 * 60.0  # a page that came back to an old text looks the same as a repeat
_MAX_KEY_CHARACTERS = 256
_THREAD_BYTES = 256 * 1024  # larger bodies are parsed off the event loop
_BODIES = 2  # in memory at once, of the largest size; of usual webhooks, thousands
_INDEX_SOURCE = "api"


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What requests may bring, and how long their repeats are known."""

    limits: Limits
    max_body_bytes: int
    deduplication_window: float  # seconds
    may_call_private: bool = False  # private addresses by callbacks


class AcceptApi:
    """Handlers of the webhook and of /api/index and /api/documents."""

    def __init__(self, acceptance: Acceptance, authenticator: Authenticator, rules: Rules) -> None:
        self._acceptance = acceptance
        self._authenticator = authenticator
        self._rules = rules
        self._limits = rules.limits
        # Whoever makes up signatures can use up the one, not the other.
        self._bodies_by_token = Bodies(_BODIES * rules.max_body_bytes)
        self._bodies_by_signature = Bodies(_BODIES * rules.max_body_bytes)

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/api/webhook/firecrawl", self.post_webhook)
        app.router.add_post("/api/index", self.post_document)
        app.router.add_post("/api/index/batch", self.post_batch)
        app.router.add_delete("/api/documents", self.delete_document)

    async def post_webhook(self, request: web.Request) -> web.Response:
        """A Firecrawl webhook: 202 with a job if it carries documents, else 200."""
        signature = request.headers.get("X-Firecrawl-Signature")
        authorization = request.headers.get("Authorization")
        _allow(self._authenticator.check_webhook_headers(authorization, signature))  # nothing is read for a stranger
        bodies = self._bodies_by_token if signature is None else self._bodies_by_signature
        async with bodies.received(request, self._rules.max_body_bytes) as body:
            if signature is not None:
                _allow(self._authenticator.check_signature(signature, body))
            event = await _parse(request, body, lambda: parse_webhook(body, self._limits))
            answer = await self._answer_event(request, event, self._explicit_key(request, body))
            if event.ending is not None and event.crawl_id is not None:
                await self._acceptance.end_crawl(event.crawl_id, event.ending)
            return answer

    async def _answer_event(
        self, request: web.Request, event: WebhookEvent, explicit_key: DeliveryKey | None
    ) -> web.Response:
        for problem in event.ignored:
            log.warning("Webhook override ignored", reason=problem, crawl_id=event.crawl_id)
        if event.kind is not EventKind.DOCUMENTS or not event.documents:
            log.info("Webhook acknowledged", type=event.type, kind=event.kind, crawl_id=event.crawl_id)
            return json_response({"status": "acknowledged", "type": event.type})
        order = Order(
            kind=JobKind.INDEX_BATCH,
            lane=lane_query(request) or event.lane or Lane.NORMAL,
            source=event.crawl_id,
            collection=collection_query(request) or event.collection,
            crawl_id=event.crawl_id,
            request_id=request[REQUEST_ID],
            delivery=explicit_key or self._implicit_key(event),
        )
        return await self._accept(request, order, event.documents)

    async def post_document(self, request: web.Request) -> web.Response:
        """One document. A bad one is 422 and makes no job."""
        limit = min(MAX_DOCUMENT_REQUEST_BYTES, self._rules.max_body_bytes)
        async with self._bodies_by_token.received(request, limit) as body:
            document = await _parse(request, body, lambda: parse_single(body, self._limits))
            order = self._order(request, JobKind.INDEX_DOCUMENT, body, lane=Lane.HIGH, source=_INDEX_SOURCE)
            return await self._accept(request, order, [document])

    async def post_batch(self, request: web.Request) -> web.Response:
        """Many documents, as one JSON object or as NDJSON."""
        is_lines = "ndjson" in request.content_type or "jsonl" in request.content_type
        async with self._bodies_by_token.received(request, self._rules.max_body_bytes) as body:
            parse: Callable[[], BulkRequest] = lambda: (  # noqa: E731 - chosen here, run in a thread
                parse_ndjson(body, request.query, self._limits) if is_lines else parse_batch(body, self._limits)
            )
            bulk = await _parse(request, body, parse)
            order = self._order(
                request, JobKind.INDEX_BATCH, body, lane=bulk.lane or Lane.LOW, collection=bulk.collection,
                callback_url=bulk.callback_url,
            )  # fmt: skip
            return await self._accept(request, order, bulk.documents)

    async def delete_document(self, request: web.Request) -> web.Response:
        """Remove the document of a URL from search: 202 with a job."""
        url, canonical = url_query(request)
        key = f"{request.query_string}".encode()
        order = self._order(request, JobKind.DELETE_DOCUMENT, key, lane=Lane.HIGH, source=_INDEX_SOURCE)
        return _accepted(await self._acceptance.delete(order, url, canonical, request[DEADLINE].start))

    def _order(self, request: web.Request, kind: JobKind, body: bytes, *, lane: Lane, **options: Any) -> Order:
        options["collection"] = options.get("collection") or collection_query(request)
        options["callback_url"] = self._allowed_callback(options.get("callback_url") or callback_query(request))
        return Order(
            kind=kind,
            lane=lane_query(request) or lane,
            source=options.pop("source", None),
            request_id=request[REQUEST_ID],
            delivery=self._explicit_key(request, body),
            **options,
        )

    async def _accept(
        self, request: web.Request, order: Order, documents: Sequence[Document | RejectedDocument]
    ) -> web.Response:
        return _accepted(await self._acceptance.index(order, documents, request[DEADLINE].start))

    def _allowed_callback(self, callback_url: str | None) -> str | None:
        """Refuse what may not be called, as far as the URL tells; a name is judged when it is called."""
        if callback_url is None or self._rules.may_call_private:
            return callback_url
        if not may_be_public(domain_of(canonical_url(callback_url))):
            raise unprocessable(f"callback_url: {ForbiddenAddressError()}")
        return callback_url

    def _explicit_key(self, request: web.Request, body: bytes) -> DeliveryKey | None:
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return None
        if not 0 < len(key) <= _MAX_KEY_CHARACTERS or not key.isprintable():
            raise unprocessable(f"Idempotency-Key must be 1 to {_MAX_KEY_CHARACTERS} printable characters")
        digest = hashlib.sha256(request.path_qs.encode() + b"\0" + body).digest()
        window = self._rules.deduplication_window
        return DeliveryKey(scope="key", key=key, request_hash=digest, window=window, is_explicit=True)

    def _implicit_key(self, event: WebhookEvent) -> DeliveryKey:
        delivery = event.delivery
        window = _BODY_HASH_WINDOW if delivery.kind is DeliveryKind.BODY else self._rules.deduplication_window
        return DeliveryKey(scope=f"webhook:{delivery.kind}", key=delivery.key, request_hash=b"", window=window)


def _allow(verdict: Verdict) -> None:
    if verdict is not Verdict.ALLOWED:
        raise ProblemError(401, "Unauthorized", verdict, {"WWW-Authenticate": "Bearer"})


async def _parse(request: web.Request, body: bytes, parse: Callable[[], T]) -> T:
    """Run a parser, a large body's in a thread; the errors of a whole body are its status."""
    deadline = request[DEADLINE]
    try:
        if len(body) < _THREAD_BYTES:
            return parse()
        deadline.lift()  # it takes what it takes, with Postgres or without
        parsed = await asyncio.to_thread(parse)
    except RejectedError as error:
        raise unprocessable(f"{error.code}: {error.reason}") from error
    deadline.start()
    return parsed


def _accepted(accepted: Accepted) -> web.Response:
    return json_response(accepted, 202, {"Location": accepted.status_url})
