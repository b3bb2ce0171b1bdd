"""What a finished crawl of whole sites did not find again: pages to be removed from search."""

from collections import Counter

import asyncpg
import msgspec

from shared.jobs.model import Removal
from shared.pipeline.outcomes import ItemState
from shared.service.errors import MillstreamError
from shared.service.parameters import ShortText

MAX_PAGES = 100_000  # of one request; the next one goes on

_CRAWL = """
SELECT min(created_at) AS began, count(*) AS jobs, count(*) FILTER (WHERE finished_at IS NULL) AS open,
  (SELECT type FROM webhook.crawl_ends WHERE crawl_id = $1) AS ended_as
FROM webhook.jobs WHERE crawl_id = $1
"""

# Gone is what crawls saw before this one began, and nobody has sent since: not this crawl (a page that failed in it is
# still there, unless its server said that it is not), not another one, and not a person.
_GONE = """
WITH sites AS MATERIALIZED (
  SELECT i.domain, count(DISTINCT i.document_id) AS seen
  FROM webhook.jobs j JOIN webhook.job_items i USING (job_id)
  WHERE j.crawl_id = $1 AND i.collection = $2 AND i.state = ANY ($4) AND i.domain <> ''
    AND ($5::text[] IS NULL OR i.domain = ANY ($5))
  GROUP BY i.domain),
failed AS MATERIALIZED (
  SELECT DISTINCT i.url FROM webhook.jobs j JOIN webhook.job_items i USING (job_id)
  WHERE j.crawl_id = $1 AND i.document_id IS NULL AND i.url IS NOT NULL AND i.code <> 'bad_status'),
gone AS (
  SELECT d.document_id, d.url, d.domain
  FROM webhook.targets t JOIN webhook.documents d USING (target) JOIN sites s ON s.domain = d.domain
  WHERE t.collection = $2 AND t.live AND d.live_version IS NOT NULL AND d.seen_crawl_id <> $1 AND d.seen_at < $3
    AND NOT EXISTS (
      SELECT FROM webhook.job_items i WHERE i.document_id = d.document_id AND i.version > d.live_version
        AND i.accepted_at >= $3)
    AND NOT EXISTS (SELECT FROM failed f WHERE f.url = d.url) AND ($6::text IS NULL OR starts_with(d.url, $6)))
SELECT s.domain, s.seen, g.document_id::text, g.url
FROM sites s LEFT JOIN gone g ON g.domain = s.domain ORDER BY s.domain, g.url LIMIT $7
"""

_COMPLETED = frozenset({"crawl.completed", "batch_scrape.completed"})
_SEEN = (ItemState.INDEXED, ItemState.UNCHANGED, ItemState.SUPERSEDED)


class UnfinishedCrawlError(MillstreamError):
    """The crawl still has documents on their way, or may not have seen all pages."""


class Scope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A crawl, and the part of its pages that is pruned."""

    crawl_id: ShortText
    domains: list[ShortText] | None = None
    url_prefix: ShortText | None = None
    assume_completed: bool = False  # prune even if the crawl did not report its completion


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """A domain of the crawl: how many of its pages were seen, how many were not any more."""

    domain: str
    seen: int
    gone: int


class Gone(msgspec.Struct, frozen=True, kw_only=True):
    """The sites of a crawl, and the pages of theirs that it did not see."""

    sites: list[Site]
    pages: list[Removal]


async def find_gone(pool: asyncpg.Pool, wanted: Scope, collection: str) -> Gone | None:
    """The pages of the crawl's sites that it did not see; None if there is no such crawl (any more).

    Raises UnfinishedCrawlError, DependencyError when Postgres is away.
    """
    crawl = await pool.fetchrow(_CRAWL, wanted.crawl_id)
    assert crawl is not None
    if not crawl["jobs"]:
        return None
    if crawl["open"]:
        raise UnfinishedCrawlError(f"{crawl['open']} jobs of the crawl have not ended yet")
    if not wanted.assume_completed and crawl["ended_as"] not in _COMPLETED:
        said = f"has ended as {crawl['ended_as']}" if crawl["ended_as"] else "has not said yet that it is completed"
        raise UnfinishedCrawlError(f"the crawl {said}: if it has seen all pages nevertheless, ask to assume_completed")
    rows = await pool.fetch(
        _GONE, wanted.crawl_id, collection, crawl["began"], list(_SEEN), wanted.domains, wanted.url_prefix, MAX_PAGES
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
