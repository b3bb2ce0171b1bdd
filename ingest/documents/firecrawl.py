"""Webhooks of Firecrawl, v0 to v2, as documents. A body without `type` is a batch of documents.

Pure: bytes in, one WebhookEvent out. Formats: docs.firecrawl.dev/webhooks and the open-source
server.
"""

import enum
import hashlib
import re
from functools import partial
from urllib.parse import quote

import msgspec

from ingest.documents.decoding import UnprocessableBodyError, decode, split_elements
from ingest.documents.document import (
    DEFAULT_LIMITS,
    Document,
    Limits,
    RejectedDocument,
    build_document,
    parse_each,
)
from ingest.documents.draft import (
    Draft,
    KnownMetadata,
    first_text,
    is_given,
    is_object,
    raw_starts,
    read_page,
    rejecting_malformed,
)
from ingest.documents.override import read_collection, read_lane
from shared.pipeline.lanes import Lane
from shared.service.errors import RejectedError

PAGE_TYPES = frozenset({"crawl.page", "batch_scrape.page"})
ENDING_TYPES = frozenset(
    f"{family}.{ending}"
    for family in ("crawl", "batch_scrape")
    for ending in ("completed", "failed", "cancelled")
)
# v0 sends all documents with `completed`; other endings may have documents, too.
DOCUMENT_TYPES = PAGE_TYPES | ENDING_TYPES
LIFECYCLE_TYPES = frozenset(
    {
        "crawl.started",
        "batch_scrape.started",
        "extract.started",
        "extract.completed",
        "extract.failed",
        "agent.started",
        "agent.action",
        "agent.completed",
        "agent.failed",
        "agent.cancelled",
        "monitor.page",
        "monitor.check.completed",
    }
)

# These differ with every scrape: an unchanged page would look changed.
_METADATA_OF_THE_SCRAPE = frozenset(
    {
        "scrapeId",
        "creditsUsed",
        "cacheState",
        "cachedAt",
        "proxyUsed",
        "indexId",
        "concurrencyLimited",
        "concurrencyQueueDurationMs",
        "scrape_id",
        "credits_used",
        "cache_state",
        "cached_at",
        "proxy_used",
        "index_id",
        "concurrency_limited",
        "concurrency_queue_duration_ms",
    }
)
_MAX_ERROR_CHARACTERS = 500
_MAX_ID_CHARACTERS = 500
_MAX_KEY_CHARACTERS = 256
_MAX_TYPE_CHARACTERS = 100
_NUMBER = re.compile(rb'"?([0-9]{1,3})"?')
_ABSENT = msgspec.Raw(b"")


class EventKind(enum.StrEnum):
    """The purpose of an event."""

    DOCUMENTS = "documents"  # documents to index, possibly none
    LIFECYCLE = "lifecycle"  # progress of a run; nothing to index
    UNKNOWN = "unknown"  # a type that this release does not know


class DeliveryKind(enum.StrEnum):
    """The identity by which repeats of a delivery are recognised."""

    WEBHOOK_ID = "webhook_id"
    SCRAPE_ID = "scrape_id"
    # Its hash; weak without a crawl id: a page that returned to an old text looks like a repeat.
    BODY = "body"


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """The identity of a delivery: events with the same kind and key are repeats."""

    kind: DeliveryKind
    key: str  # ASCII, at most 256 characters


class WebhookEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One parsed webhook call."""

    kind: EventKind
    type: str | None  # as sent; None for a bare batch of documents
    crawl_id: str | None
    delivery: Delivery
    lane: Lane | None = None  # lane and collection: from the metadata of the crawl request
    collection: str | None = None
    ignored: tuple[str, ...] = ()  # errors of lane and collection, for the log
    documents: list[Document | RejectedDocument] = []  # in the order sent

    @property
    def ending(self) -> str | None:
        """The type of an event that ends a crawl."""
        return self.type if self.type in ENDING_TYPES else None


class _Envelope(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    type: msgspec.Raw = _ABSENT
    id: msgspec.Raw = _ABSENT
    job_id: msgspec.Raw = _ABSENT  # v0
    webhook_id: msgspec.Raw = _ABSENT
    success: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT
    data: msgspec.Raw = _ABSENT
    metadata: msgspec.Raw = _ABSENT


class _Overrides(msgspec.Struct, frozen=True, kw_only=True):
    lane: msgspec.Raw = _ABSENT
    collection: msgspec.Raw = _ABSENT


_envelope = msgspec.json.Decoder(_Envelope)
_overrides = msgspec.json.Decoder(_Overrides)


def parse_webhook(body: bytes, limits: Limits = DEFAULT_LIMITS) -> WebhookEvent:
    """Parse one call. CPU-bound: 10 ms per MB, 40 with a repair.

    Raises only MalformedBodyError and UnprocessableBodyError, for any bytes; an invalid document is
    an element.
    """
    envelope = decode(_envelope, body)
    name = _event_type(envelope)
    kind = _event_kind(name)
    elements = _elements(envelope, name, limits) if kind is EventKind.DOCUMENTS else []
    lane, collection, ignored = _read_overrides(envelope.metadata)
    return WebhookEvent(
        kind=kind,
        type=name,
        crawl_id=_crawl_id(envelope),
        delivery=_delivery(envelope, name, elements) or _delivery_of_body(body),
        lane=lane,
        collection=collection,
        ignored=ignored,
        documents=_parse_pages(elements, _failure(envelope, name), limits),
    )


def _event_type(envelope: _Envelope) -> str | None:
    if not is_given(envelope.type):
        return None
    name = first_text(envelope.type) if raw_starts(envelope.type, b'"') else None
    if name is None:
        raise UnprocessableBodyError("invalid value for `type`: expected text such as crawl.page")
    return name[:_MAX_TYPE_CHARACTERS]


def _event_kind(name: str | None) -> EventKind:
    if name is None or name in DOCUMENT_TYPES:
        return EventKind.DOCUMENTS
    return EventKind.LIFECYCLE if name in LIFECYCLE_TYPES else EventKind.UNKNOWN


def _elements(envelope: _Envelope, name: str | None, limits: Limits) -> list[msgspec.Raw]:
    if raw_starts(envelope.data, b"["):
        return split_elements(envelope.data, limits.max_documents)
    if is_object(envelope.data):
        return [envelope.data]
    if is_given(envelope.data):
        raise UnprocessableBodyError(
            "invalid value for `data`: expected a document or a list of documents"
        )
    if name is None:
        raise UnprocessableBodyError(
            "the body has neither `type` nor `data`: expected an event of Firecrawl"
        )
    return []


def _failure(envelope: _Envelope, name: str | None) -> str | None:
    """Why the page of a page event failed. In other events, `success` is that of the run."""
    if name not in PAGE_TYPES or bytes(envelope.success) != b"false":
        return None
    return (first_text(envelope.error) or "the event has no `error`")[:_MAX_ERROR_CHARACTERS]


def _parse_pages(
    elements: list[msgspec.Raw], failure: str | None, limits: Limits
) -> list[Document | RejectedDocument]:
    if failure is not None and not elements:
        return [RejectedDocument(position=0, url=None, code="scrape_failed", error=failure)]
    return parse_each(elements, read_page, partial(_build_page, failure=failure, limits=limits))


def _build_page(draft: Draft, *, failure: str | None, limits: Limits) -> Document:
    with rejecting_malformed():
        error = (first_text(draft.known.error, draft.known.page_error) or "")[
            :_MAX_ERROR_CHARACTERS
        ]
    if failure is not None:
        raise RejectedError("scrape_failed", failure)
    status = _status(draft.known)
    if status is not None and not 200 <= status < 300:
        reason = f"the page had HTTP status {status}"
        raise RejectedError("bad_status", f"{reason}: {error}" if error else reason)
    if error and not is_given(draft.fields.markdown):
        raise RejectedError("scrape_failed", error)
    return build_document(draft, limits, _METADATA_OF_THE_SCRAPE)


def _status(known: KnownMetadata) -> int | None:
    for raw in (known.status_code, known.status_code_snake, known.page_status_code):
        if match := _NUMBER.fullmatch(raw):
            return int(match[1])
    return None


def _delivery(
    envelope: _Envelope, name: str | None, elements: list[msgspec.Raw]
) -> Delivery | None:
    webhook_id = _identifier(envelope.webhook_id)
    if webhook_id:
        return Delivery(kind=DeliveryKind.WEBHOOK_ID, key=_key(webhook_id))
    crawl_id, scrape_id = _crawl_id(envelope), _scrape_id(elements)
    if name and crawl_id and scrape_id:
        return Delivery(kind=DeliveryKind.SCRAPE_ID, key=_key(name, crawl_id, scrape_id))
    return None


def _delivery_of_body(body: bytes) -> Delivery:
    return Delivery(kind=DeliveryKind.BODY, key=hashlib.sha256(body).hexdigest())


def _key(*parts: str) -> str:
    """The parts as one unique text; short, because Postgres indexes at most 2,704 bytes."""
    key = "/".join(quote(part, safe="") for part in parts)
    return (
        key
        if len(key) <= _MAX_KEY_CHARACTERS
        else f"sha256-{hashlib.sha256(key.encode()).hexdigest()}"
    )


def _crawl_id(envelope: _Envelope) -> str | None:
    return _identifier(envelope.id) or _identifier(envelope.job_id)


def _scrape_id(elements: list[msgspec.Raw]) -> str | None:
    """The scrape of an event of one page; several pages have several ids."""
    if len(elements) != 1:
        return None
    try:
        known = read_page(elements[0]).known
    except RejectedError:
        return None
    return _identifier(known.scrape_id) or _identifier(known.scrape_id_snake)


def _identifier(raw: msgspec.Raw) -> str | None:
    """An id as text, truncated; a number is an id, too."""
    text = bytes(raw).decode() if bytes(raw).isdigit() else first_text(raw)
    return text[:_MAX_ID_CHARACTERS] if text else None


def _read_overrides(metadata: msgspec.Raw) -> tuple[Lane | None, str | None, tuple[str, ...]]:
    """Lane, collection, and errors: an invalid value is ignored, so that no pages of a crawl are
    lost.
    """
    if not is_object(metadata):
        return None, None, ()
    overrides = decode(_overrides, metadata)
    lane, collection, ignored = None, None, []
    try:
        lane = read_lane(overrides.lane)
    except RejectedError as error:
        ignored.append(error.reason)
    try:
        collection = read_collection(overrides.collection)
    except RejectedError as error:
        ignored.append(error.reason)
    return lane, collection, tuple(ignored)
