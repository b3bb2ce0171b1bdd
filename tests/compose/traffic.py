"""A crawl through the webhook as Firecrawl sends it, and whether a page was lost or doubled."""

import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from cli.client import ApiClient
from cli.failures import ApiError
from cli.sample import pages as sample_pages
from cli.sample.webhooks import SIGNATURE_HEADER, Event, events, sign
from tests.compose.deployment import wait_for

_ATTEMPTS_SECONDS = 120.0  # how long a sender tries to deliver one event
_PAUSE_SECONDS = 0.5

# Prints [url, chunk index] of every point; runs in a container, from where Qdrant can be reached.
LIST_POINTS = """
import json, os
from qdrant_client import QdrantClient
env = os.environ
client = QdrantClient(url=env["WEBHOOK_QDRANT_URL"], api_key=env["WEBHOOK_QDRANT_API_KEY"])
[name] = [each.name for each in client.get_collections().collections]
fields = ["url", "chunk_index"]
found, offset = [], None
while True:
    points, offset = client.scroll(name, limit=1000, offset=offset, with_payload=fields)
    found += [[point.payload["url"], point.payload["chunk_index"]] for point in points]
    if offset is None:
        break
print(json.dumps(found))
"""


class Crawl(threading.Thread):
    """Posts the events of one crawl, one every `pace` seconds, each until it is answered with 2xx."""

    def __init__(
        self, api: ApiClient, secret: str, crawled: Sequence[dict[str, Any]], pace: float
    ) -> None:
        super().__init__(name="crawl", daemon=True)
        self._api = api
        self._secret = secret
        self._pace = pace
        self._events = list(events(crawled, lambda: str(uuid.uuid4())))
        self.crawl_id: str = self._events[0]["id"]
        self.resent = 0
        self.errors: list[str] = []

    def run(self) -> None:
        for event in self._events:
            try:
                self._deliver(event)
            except ApiError as error:
                self.errors.append(str(error))
                return
            time.sleep(self._pace)

    def _deliver(self, event: Event) -> None:
        body = msgspec.json.encode(event)
        deadline = time.monotonic() + _ATTEMPTS_SECONDS
        while not self._is_accepted(body, deadline):
            self.resent += 1
            time.sleep(_PAUSE_SECONDS)

    def _is_accepted(self, body: bytes, deadline: float) -> bool:
        """Post the event once. Raises ApiError if it was refused, or if the deadline has passed."""
        try:
            self._api.post_raw(
                "/api/webhook/firecrawl", body, {SIGNATURE_HEADER: sign(body, self._secret)}
            )
        except ApiError as error:
            is_final = error.status is not None and error.status < 500 and error.status != 429
            if is_final or time.monotonic() > deadline:
                raise
            return False
        return True


def make_pages(first: int, count: int) -> list[dict[str, Any]]:
    """Real pages with a word of their own in every paragraph: no two chunks are the same."""
    bundled = sample_pages()
    return [_page(number, bundled[number % len(bundled)]) for number in range(first, first + count)]


def word_of(number: int) -> str:
    return f"page{number:05}x"


def url_of(number: int) -> str:
    return f"https://compose.test/{number:05}"


def wait_for_crawl(api: ApiClient, crawl: Crawl, count: int, *, timeout: float) -> dict[str, Any]:
    """Wait until all pages of the crawl have ended; returns its totals."""
    totals: dict[str, Any] = {}

    def is_done() -> bool:
        nonlocal totals
        try:
            totals = api.get("/api/stats", crawl_id=crawl.crawl_id)
        except ApiError:
            return False  # ingest may be restarting
        return bool(totals["total"] == count and totals["open_jobs"] == 0)

    wait_for(is_done, timeout=timeout, description=f"{count} pages to end; so far {totals}")
    return totals


def not_found(api: ApiClient, numbers: Sequence[int]) -> list[str]:
    """URLs of pages that a search for their own word does not find first."""
    return [
        url_of(number) for number in numbers if _first_hit(api, word_of(number)) != url_of(number)
    ]


def wrong_points(
    points: Sequence[tuple[str, int]], numbers: Sequence[int], chunks: int
) -> list[str]:
    """What is lost or doubled among the points (URL, chunk index) of pages with `chunks` in sum."""
    doubled = [
        f"{url} has chunk {index} {n} times" for (url, index), n in Counter(points).items() if n > 1
    ]
    held: dict[str, set[int]] = {url_of(number): set() for number in numbers}
    strange = [f"{url} was never sent" for url, _ in points if url not in held]
    for url, index in points:
        held.setdefault(url, set()).add(index)
    lost = [
        f"{url} has chunks {sorted(each)}"
        for url, each in held.items()
        if each != set(range(len(each) or 1))
    ]
    total = [f"{len(points)} points for {chunks} chunks"] if len(points) != chunks else []
    return doubled + strange + lost + total


def _first_hit(api: ApiClient, word: str) -> str | None:
    results = api.post("/api/search", {"query": word, "mode": "keyword", "limit": 1})["results"]
    return str(results[0]["url"]) if results else None


def _page(number: int, bundled: dict[str, Any]) -> dict[str, Any]:
    word = word_of(number)
    text = re.sub(r"\n\n+", f" {word}\n\n", bundled["markdown"])
    metadata = {**bundled["metadata"], "url": url_of(number), "sourceURL": url_of(number)}
    return {"markdown": f"{text} {word}", "metadata": metadata}
