"""Pruning: the pages of its sites that a finished crawl no longer found."""

from collections import Counter

import asyncpg
import msgspec

from shared.jobs.model import Removal
from shared.pipeline.outcomes import ItemState
from shared.service.errors import MillstreamError
from shared.service.parameters import ShortText

MAX_PAGES = 100_000  # of one request; a repeated request continues

_CRAWL = """
SELECT min(created_at) AS began, count(*) AS jobs,
       count(*) FILTER (WHERE finished_at IS NULL) AS open,
       (SELECT type FROM webhook.crawl_ends WHERE crawl_id = $1) AS ended_as
FROM webhook.jobs WHERE crawl_id = $1
"""

# A page is gone if a crawl saw it before this one began and it was not sent since: by this crawl,
# another one, or the API. A page that failed in this crawl still exists, unless its server said
# that it does not (`bad_status`).
_GONE = """
WITH sites AS MATERIALIZED (
  SELECT i.domain, count(DISTINCT i.document_id) AS seen
  FROM webhook.jobs j JOIN webhook.job_items i USING (job_id)
  WHERE j.crawl_id = $1 AND i.collection = $2 AND i.state = ANY ($4) AND i.domain <> ''
    AND ($5::text[] IS NULL OR i.domain = ANY ($5))
  GROUP BY i.domain),
failed AS MATERIALIZED (
  SELECT DISTINCT i.url FROM webhook.jobs j JOIN webhook.job_items i USING (job_id)
  WHERE j.crawl_id = $1 AND i.document_id IS NULL AND i.url IS NOT NULL
    AND i.code <> 'bad_status'),
gone AS (
  SELECT d.document_id, d.url, d.domain
  FROM webhook.targets t JOIN webhook.documents d USING (target) JOIN sites s ON s.domain = d.domain
  WHERE t.collection = $2 AND t.live AND d.live_version IS NOT NULL
    AND d.seen_crawl_id <> $1 AND d.seen_at < $3
    AND NOT EXISTS (
      SELECT FROM webhook.job_items i
      WHERE i.document_id = d.document_id AND i.version > d.live_version AND i.accepted_at >= $3)
    AND NOT EXISTS (SELECT FROM failed f WHERE f.url = d.url)
    AND ($6::text IS NULL OR starts_with(d.url, $6)))
SELECT s.domain, s.seen, g.document_id::text, g.url
FROM sites s LEFT JOIN gone g ON g.domain = s.domain ORDER BY s.domain, g.url LIMIT $7
"""

_COMPLETED = frozenset({"crawl.completed", "batch_scrape.completed"})
_SEEN = (ItemState.INDEXED, ItemState.UNCHANGED, ItemState.SUPERSEDED)


_END_CRAWL = """
INSERT INTO webhook.crawl_ends (crawl_id, type) VALUES ($1, $2)
ON CONFLICT (crawl_id) DO UPDATE SET type = excluded.type, ended_at = now()
"""


class UnfinishedCrawlError(MillstreamError):
    """The crawl has open jobs, or has not reported its completion."""


class Scope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A crawl, and the part of its pages that is pruned."""

    crawl_id: ShortText
    domains: list[ShortText] | None = None
    url_prefix: ShortText | None = None
    assume_completed: bool = False  # prune even if the crawl did not report its completion


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """A domain of the crawl: how many of its pages were found, and how many are gone."""

    domain: str
    seen: int
    gone: int


class Gone(msgspec.Struct, frozen=True, kw_only=True):
    """The sites of a crawl, and their pages that it no longer found."""

    sites: list[Site]
    pages: list[Removal]


async def record_crawl_end(pool: asyncpg.Pool, crawl_id: str, event_type: str) -> None:
    """Record how a crawl ended. Raises DependencyError when Postgres is unavailable."""
    await pool.execute(_END_CRAWL, crawl_id, event_type)


async def find_gone(pool: asyncpg.Pool, wanted: Scope, collection: str) -> Gone | None:
    """The pages of its sites that the crawl no longer found; None if no job of the crawl is stored.

    Raises UnfinishedCrawlError, and DependencyError when Postgres is unavailable.
    """
    crawl = await pool.fetchrow(_CRAWL, wanted.crawl_id)
    assert crawl is not None
    if not crawl["jobs"]:
        return None
    if crawl["open"]:
        raise UnfinishedCrawlError(
            f"{crawl['open']} jobs of the crawl have not ended: repeat the request when they have"
        )
    if not wanted.assume_completed and crawl["ended_as"] not in _COMPLETED:
        end = crawl["ended_as"]
        reported = f"ended as {end}" if end else "has not reported its completion"
        raise UnfinishedCrawlError(
            f"the crawl {reported}: if it has visited all pages, send `assume_completed`"
        )
    rows = await pool.fetch(
        _GONE,
        wanted.crawl_id,
        collection,
        crawl["began"],
        list(_SEEN),
        wanted.domains,
        wanted.url_prefix,
        MAX_PAGES,
    )
    pages = [
        Removal(document_id=row["document_id"], url=row["url"], domain=row["domain"])
        for row in rows
        if row["document_id"] is not None
    ]
    gone = Counter(page.domain for page in pages)
    seen = {row["domain"]: row["seen"] for row in rows}
    sites = [Site(domain=domain, seen=count, gone=gone[domain]) for domain, count in seen.items()]
    return Gone(sites=sites, pages=pages)
