"""The routes that take work in: the webhook, single documents, bulk loads, deletes. Parsing is elsewhere."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from aiohttp import web

from ingest.acceptance import Acceptance, Accepted, Order
from ingest.bulk import BulkRequest, parse_batch, parse_ndjson, parse_single
from ingest.canonical import canonical_url
from ingest.document import Limits
from ingest.firecrawl import DeliveryKind, EventKind, WebhookEvent, parse_webhook
from ingest.queries import collection_query, lane_query, unprocessable
from shared.auth import Authenticator, Verdict
from shared.errors import RejectedError
from shared.http import REQUEST_ID, ProblemError, json_response
from shared.jobs.accept import DeliveryKey
from shared.jobs.model import JobKind
from shared.messages import Lane

log = structlog.get_logger()

T = TypeVar("T")

MAX_DOCUMENT_REQUEST_BYTES = 16 * 1024 * 1024
_BODY_HASH_WINDOW = 30 * 60.0  # a page that came back to an old text looks the same as a repeat
_MAX_KEY_CHARACTERS = 256
_THREAD_BYTES = 256 * 1024  # larger bodies are parsed off the event loop
_INDEX_SOURCE = "api"


class AcceptApi:
    """Handlers of the webhook and of /api/index and /api/documents."""

    def __init__(self, acceptance: Acceptance, authenticator: Authenticator, limits: Limits, *, window: float) -> None:
        self._acceptance = acceptance
        self._authenticator = authenticator
        self._limits = limits
        self._window = window

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/api/webhook/firecrawl", self.post_webhook)
        app.router.add_post("/api/index", self.post_document)
        app.router.add_post("/api/index/batch", self.post_batch)
        app.router.add_delete("/api/documents", self.delete_document)

    async def post_webhook(self, request: web.Request) -> web.Response:
        """A Firecrawl webhook: 202 with a job if it carries documents, else 200."""
        if "X-Firecrawl-Signature" not in request.headers:
            self._check_sender(request, b"")  # before 64 MiB are read for nothing
        body = await request.read()
        self._check_sender(request, body)
        event = await _parse(body, lambda: parse_webhook(body, self._limits))
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
            delivery=self._explicit_key(request, body) or self._implicit_key(event),
        )
        return _accepted(await self._acceptance.index(order, event.documents))

    async def post_document(self, request: web.Request) -> web.Response:
        """One document. A bad one is 422 and makes no job."""
        body = await request.read()
        if len(body) > MAX_DOCUMENT_REQUEST_BYTES:
            raise web.HTTPRequestEntityTooLarge(MAX_DOCUMENT_REQUEST_BYTES, len(body))
        document = await _parse(body, lambda: parse_single(body, self._limits))
        order = self._order(request, JobKind.INDEX_DOCUMENT, body, lane=Lane.HIGH, source=_INDEX_SOURCE)
        return _accepted(await self._acceptance.index(order, [document]))

    async def post_batch(self, request: web.Request) -> web.Response:
        """Many documents, as one JSON object or as NDJSON."""
        body = await request.read()
        is_lines = "ndjson" in request.content_type or "jsonl" in request.content_type
        parse: Callable[[], BulkRequest] = lambda: (  # noqa: E731 - chosen here, run in a thread
            parse_ndjson(body, request.query, self._limits) if is_lines else parse_batch(body, self._limits)
        )
        bulk = await _parse(body, parse)
        if bulk.callback_url is not None:
            raise unprocessable("callback_url: completion webhooks are not sent by this release; poll the job")
        order = self._order(
            request, JobKind.INDEX_BATCH, body, lane=bulk.lane or Lane.LOW, collection=bulk.collection,
        )  # fmt: skip
        return _accepted(await self._acceptance.index(order, bulk.documents))

    async def delete_document(self, request: web.Request) -> web.Response:
        """Remove the document of a URL from search: 202 with a job."""
        url = request.query.get("url", "")
        try:
            canonical = canonical_url(url)
        except RejectedError as error:
            raise unprocessable(f"url: {error.reason}") from error
        key = f"{request.query_string}".encode()
        order = self._order(request, JobKind.DELETE_DOCUMENT, key, lane=Lane.HIGH, source=_INDEX_SOURCE)
        return _accepted(await self._acceptance.delete(order, url, canonical))

    def _order(self, request: web.Request, kind: JobKind, body: bytes, *, lane: Lane, **options: Any) -> Order:
        options["collection"] = options.get("collection") or collection_query(request)
        return Order(
            kind=kind,
            lane=lane_query(request) or lane,
            source=options.pop("source", None),
            request_id=request[REQUEST_ID],
            delivery=self._explicit_key(request, body),
            **options,
        )

    def _check_sender(self, request: web.Request, body: bytes) -> None:
        signature = request.headers.get("X-Firecrawl-Signature")
        verdict = self._authenticator.check_webhook(request.headers.get("Authorization"), signature, body)
        if verdict is not Verdict.ALLOWED:
            raise ProblemError(401, "Unauthorized", verdict, {"WWW-Authenticate": "Bearer"})

    def _explicit_key(self, request: web.Request, body: bytes) -> DeliveryKey | None:
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return None
        if not 0 < len(key) <= _MAX_KEY_CHARACTERS or not key.isprintable():
            raise unprocessable(f"Idempotency-Key must be 1 to {_MAX_KEY_CHARACTERS} printable characters")
        digest = hashlib.sha256(request.path_qs.encode() + b"\0" + body).digest()
        return DeliveryKey(scope="key", key=key, request_hash=digest, window=self._window, is_explicit=True)

    def _implicit_key(self, event: WebhookEvent) -> DeliveryKey:
        delivery = event.delivery
        window = _BODY_HASH_WINDOW if delivery.kind is DeliveryKind.BODY else self._window
        return DeliveryKey(scope=f"webhook:{delivery.kind}", key=delivery.key, request_hash=b"", window=window)


async def _parse(body: bytes, parse: Callable[[], T]) -> T:
    """Run a parser, a large body's in a thread; the errors of a whole body are its status."""
    try:
        return parse() if len(body) < _THREAD_BYTES else await asyncio.to_thread(parse)
    except RejectedError as error:
        raise unprocessable(f"{error.code}: {error.reason}") from error


def _accepted(accepted: Accepted) -> web.Response:
    return json_response(accepted, 202, {"Location": accepted.status_url})
