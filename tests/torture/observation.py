"""Reads what the checker compares: jobs, registry, dead letters (Postgres), streams (Redis), points (Qdrant).

It goes past the proxies, and never writes.
"""

from collections.abc import Mapping
from typing import Any

import asyncpg
from redis.asyncio import Redis

from shared.qdrant import make_client
from shared.settings import QdrantSettings, Secret
from shared.streams import StageName
from tests.torture.checker import Item, Job, Observed, Point

COLLECTION = "pulse_docs_1"  # the physical one; its alias is for outsiders

_JOBS = """
SELECT job_id::text, status, i.position, i.url, i.state FROM webhook.jobs j JOIN webhook.job_items i USING (job_id)
WHERE job_id IN (SELECT job_id FROM webhook.job_items WHERE domain = $1) ORDER BY job_id, i.position
"""
_LIVE = "SELECT document_id::text, live_version FROM webhook.documents WHERE domain = $1 AND live_version IS NOT NULL"
_DEAD = (
    "SELECT coalesce(url, 'unreadable entry ' || id) AS url FROM webhook.dead_letters WHERE url LIKE $1 OR url IS NULL"
)
_OPEN = """
SELECT count(*) FROM webhook.jobs WHERE finished_at IS NULL
AND job_id IN (SELECT job_id FROM webhook.job_items WHERE domain = $1)
"""


class Observer:
    """Looks at one stack. `environment` has the servers' own URLs."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    async def is_busy(self, site: str) -> bool:
        """Whether jobs of the site are open or anything is in the streams. Raises what the servers' clients raise."""
        return bool(await self._open_jobs(site)) or any(map(any, (await self.backlog()).values()))

    async def _open_jobs(self, site: str) -> int:
        connection = await asyncpg.connect(self._environment["WEBHOOK_DATABASE_URL"])
        try:
            return int(await connection.fetchval(_OPEN, site) or 0)
        finally:
            await connection.close()

    async def observe(self, site: str) -> Observed:
        """Everything of the site's documents."""
        connection = await asyncpg.connect(self._environment["WEBHOOK_DATABASE_URL"])
        try:
            jobs = _grouped(await connection.fetch(_JOBS, site))
            live = {row["document_id"]: row["live_version"] for row in await connection.fetch(_LIVE, site)}
            dead = [row["url"] for row in await connection.fetch(_DEAD, f"https://{site}/%")]
        finally:
            await connection.close()
        points = await self._points(site)
        return Observed(jobs=jobs, points=points, live=live, backlog=await self.backlog(), dead=dead)

    async def backlog(self) -> dict[str, tuple[int, int]]:
        """Entries and pending entries of each stream; a stream without a group has none pending."""
        async with Redis.from_url(self._environment["WEBHOOK_REDIS_URL"]) as redis:
            return {
                stream: (int(await redis.xlen(stream)), await _pending(redis, stream, stage))
                for stage in StageName
                for stream in stage.streams
            }

    async def _points(self, site: str) -> list[Point]:
        client = make_client(
            QdrantSettings(
                qdrant_url=self._environment["WEBHOOK_QDRANT_URL"],
                qdrant_api_key=Secret(self._environment["WEBHOOK_QDRANT_API_KEY"]),
            )
        )
        points: list[Point] = []
        offset: Any = None
        try:
            while await client.collection_exists(COLLECTION):
                found, offset = await client.scroll(COLLECTION, limit=1000, offset=offset, with_payload=_FIELDS)
                points += [Point(**record.payload) for record in found if record.payload]
                if offset is None:
                    break
            return [point for point in points if point.url.startswith(f"https://{site}/")]
        finally:
            await client.close()


_FIELDS = ["url", "document_id", "version", "chunk_index", "text_hash"]


async def _pending(redis: Redis, stream: str, stage: StageName) -> int:
    groups: Any = await redis.xinfo_groups(stream) if await redis.exists(stream) else []
    return sum(group["pending"] for group in groups if group["name"] == stage.encode())


def _grouped(rows: list[asyncpg.Record]) -> dict[str, Job]:
    items: dict[str, list[Item]] = {}
    statuses = {row["job_id"]: row["status"] for row in rows}
    for row in rows:
        items.setdefault(row["job_id"], []).append(Item(row["url"], row["state"]))
    return {job_id: Job(statuses[job_id], items[job_id]) for job_id in items}
