"""Counts: of everything, or of one crawl."""

import datetime as dt

import asyncpg
import msgspec

_COLLECTIONS = """
SELECT t.collection, count(d.live_version) AS documents,
       count(d.document_id) FILTER (WHERE d.live_version IS NULL) AS deleted,
       coalesce(sum(d.chunks) FILTER (WHERE d.live_version IS NOT NULL), 0)::bigint AS chunks
FROM webhook.targets t LEFT JOIN webhook.documents d USING (target) WHERE t.live
GROUP BY t.collection ORDER BY t.collection
"""

_JOBS = "SELECT status, count(*) FROM webhook.jobs GROUP BY status ORDER BY status"

_WAITING = """
SELECT (SELECT count(*) FROM webhook.job_items WHERE state = 'queued') AS queued,
       (SELECT count(*) FROM webhook.job_items WHERE state = 'released') AS released,
       (SELECT count(*) FROM webhook.dead_letters WHERE replayed_at IS NULL) AS dead_letters
"""

_CRAWL = """
SELECT count(*) AS jobs, coalesce(sum(total), 0)::bigint AS total,
       coalesce(sum(succeeded), 0)::bigint AS succeeded,
       coalesce(sum(failed), 0)::bigint AS failed, coalesce(sum(cancelled), 0)::bigint AS cancelled,
       count(*) FILTER (WHERE finished_at IS NULL) AS open_jobs, min(created_at) AS created_at,
       CASE WHEN count(*) = count(finished_at) THEN max(finished_at) END AS finished_at,
       (SELECT type FROM webhook.crawl_ends WHERE crawl_id = $1) AS ended_as
FROM webhook.jobs WHERE crawl_id = $1
"""

_CRAWL_STATES = """
SELECT i.state, count(*) AS documents, coalesce(sum(i.chunks), 0)::bigint AS chunks
FROM webhook.jobs j JOIN webhook.job_items i USING (job_id) WHERE j.crawl_id = $1
GROUP BY i.state ORDER BY i.state
"""


class CollectionStats(msgspec.Struct, frozen=True, kw_only=True):
    """The size of a collection."""

    collection: str
    documents: int
    deleted: int  # known, but not searchable
    chunks: int


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of everything that is stored; jobs by status."""

    collections: list[CollectionStats]
    jobs: dict[str, int]
    queued: int  # documents waiting in Postgres
    released: int  # documents in the streams
    dead_letters: int  # not replayed


class CrawlStats(msgspec.Struct, frozen=True, kw_only=True):
    """One crawl, over all of its jobs."""

    crawl_id: str
    jobs: int
    open_jobs: int
    total: int
    succeeded: int
    failed: int
    cancelled: int
    documents: dict[str, int]  # by state
    chunks: int
    created_at: dt.datetime
    finished_at: dt.datetime | None  # of its last job, if none is open
    ended_as: str | None  # the last event of the crawl, such as crawl.completed


class StatsStore:
    """Counts in Postgres. Raises DependencyError when it is unavailable."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def all(self) -> Stats:
        """Counts of everything; reads the whole registry, a second for a million documents."""
        collections = await self._pool.fetch(_COLLECTIONS)
        jobs = await self._pool.fetch(_JOBS)
        (waiting,) = await self._pool.fetch(_WAITING)
        return Stats(
            collections=[msgspec.convert(dict(row), CollectionStats) for row in collections],
            jobs={row["status"]: row["count"] for row in jobs},
            **dict(waiting),
        )

    async def crawl(self, crawl_id: str) -> CrawlStats | None:
        """Counts of one crawl; None if no job of it is stored."""
        (totals,) = await self._pool.fetch(_CRAWL, crawl_id)
        if not totals["jobs"]:
            return None
        states = await self._pool.fetch(_CRAWL_STATES, crawl_id)
        return CrawlStats(
            crawl_id=crawl_id,
            **dict(totals),
            documents={row["state"]: row["documents"] for row in states},
            chunks=sum(row["chunks"] for row in states),
        )
