"""The webhooks that Firecrawl sends during a crawl. No I/O; ids come from the caller.

Format: docs.firecrawl.dev/webhooks (v2). Each run needs new ids: a known id is a repeated delivery.
"""

import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

SIGNATURE_HEADER = "X-Firecrawl-Signature"

Event = dict[str, Any]


def events(pages: Sequence[Mapping[str, Any]], new_id: Callable[[], str]) -> Iterator[Event]:
    """The events of one crawl in order: crawl.started, one crawl.page per page, crawl.completed.

    `new_id` is called for the crawl, each event and each scrape, and must return unique ids.
    """
    crawl_id = new_id()
    yield _event("crawl.started", crawl_id, new_id())
    for page in pages:
        yield _event("crawl.page", crawl_id, new_id(), _document(page, new_id()))
    yield _event("crawl.completed", crawl_id, new_id())


def sign(body: bytes, secret: str) -> str:
    """The value of the signature header: HMAC-SHA256 of the exact bytes of the body."""
    return "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex()


def _event(kind: str, crawl_id: str, webhook_id: str, *documents: Mapping[str, Any]) -> Event:
    return {
        "success": True,
        "type": kind,
        "id": crawl_id,
        "webhookId": webhook_id,
        "data": list(documents),
        "metadata": {},
    }


def _document(page: Mapping[str, Any], scrape_id: str) -> dict[str, Any]:
    """A page as an event carries it: the URL is in the metadata only."""
    return {"markdown": page["markdown"], "metadata": {**page["metadata"], "scrapeId": scrape_id}}
