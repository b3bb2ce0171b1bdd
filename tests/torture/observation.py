"""Reads what the checker compares.

Jobs, registry and dead letters come from Postgres, streams from Redis, points from Qdrant.

It bypasses the proxies, and never writes.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
from qdrant_client import AsyncQdrantClient
from qdrant_client.models import Filter, Record
from redis.asyncio import Redis

from indexer.qdrant.client import make_client
from shared.pipeline.stages import StageName
from shared.service.clients import redis_command
from shared.service.settings import QdrantSettings, Secret
from tests.torture.checker import Item, Job, Observed, Point
from tests.torture.rig import LEASE, Rig

_LEFT = (
    8 * LEASE
)  # seconds; a dead consumer is removed after four leases, by one who looks once a lease

_TARGETS = "SELECT target FROM webhook.targets"
_JOBS = """
SELECT job_id::text, status, i.position, i.url, i.state
FROM webhook.jobs j JOIN webhook.job_items i USING (job_id)
WHERE job_id IN (SELECT job_id FROM webhook.job_items WHERE domain = $1) ORDER BY job_id, i.position
"""
_LIVE = (
    "SELECT document_id::text, live_version FROM webhook.documents "
    "WHERE domain = $1 AND live_version IS NOT NULL"
)
_DEAD = (
    "SELECT coalesce(url, 'unreadable entry ' || id) AS url FROM webhook.dead_letters "
    "WHERE (url LIKE $1 OR url IS NULL) AND replayed_at IS NULL"
)
_OPEN = """
SELECT count(*) FROM webhook.jobs WHERE finished_at IS NULL
AND job_id IN (SELECT job_id FROM webhook.job_items WHERE domain = $1)
"""


class Observer:
    """Reads the servers of one pipeline, not through its proxies."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._environment = rig.environment

    async def is_busy(self, site: str) -> bool:
        """Whether jobs of the site are open or any entry is in the streams.

        Raises what the clients of the servers raise.
        """
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
            live = {
                row["document_id"]: row["live_version"]
                for row in await connection.fetch(_LIVE, site)
            }
            dead = [row["url"] for row in await connection.fetch(_DEAD, f"https://{site}/%")]
            targets = [row["target"] for row in await connection.fetch(_TARGETS)]
        finally:
            await connection.close()
        points = await self._points(site, targets)
        return Observed(
            jobs=jobs, points=points, live=live, backlog=await self.backlog(), dead=dead
        )

    async def backlog(self) -> dict[str, tuple[int, int]]:
        """Entries and pending entries of each stream; a stream without a group has none pending."""
        async with redis_command(self._environment["WEBHOOK_REDIS_URL"]) as redis:
            return {
                stream: (int(await redis.xlen(stream)), await _pending(redis, stream, stage))
                for stage in StageName
                for stream in stage.streams
            }

    async def consumers(self, stage: StageName) -> dict[str, float]:
        """The consumers of a stage's groups, with the seconds since each was last heard of."""
        found: dict[str, float] = {}
        async with redis_command(self._environment["WEBHOOK_REDIS_URL"]) as redis:
            for stream in stage.streams:
                rows: Any = await redis.xinfo_consumers(stream, stage)
                for row in rows:
                    name = row["name"].decode()
                    found[name] = min(row["idle"] / 1000, found.get(name, row["idle"] / 1000))
        return found

    async def left_consumers(self) -> list[str]:
        """Consumers of processes that are gone, and should be, too."""
        live = self._rig.pids(*StageName)
        return [
            name
            for stage in StageName
            for name, idle in (await self.consumers(stage)).items()
            if idle > _LEFT and int(name.split(":")[-2]) not in live
        ]

    async def records(self, selection: Filter) -> AsyncIterator[Record]:
        """Points of all collections that a filter selects, with vectors."""
        connection = await asyncpg.connect(self._environment["WEBHOOK_DATABASE_URL"])
        try:
            targets = [row["target"] for row in await connection.fetch(_TARGETS)]
        finally:
            await connection.close()
        async with self._qdrant() as client:
            for name in targets:
                if await client.collection_exists(name):
                    found, _ = await client.scroll(
                        name, selection, limit=100_000, with_vectors=True
                    )
                    for record in found:
                        yield record

    async def _points(self, site: str, collections: Sequence[str]) -> list[Point]:
        async with self._qdrant() as client:
            existing = [name for name in collections if await client.collection_exists(name)]
            points = [point for name in existing async for point in _scroll(client, name)]
            return [point for point in points if point.url.startswith(f"https://{site}/")]

    @contextlib.asynccontextmanager
    async def _qdrant(self) -> AsyncIterator[AsyncQdrantClient]:
        client = make_client(
            QdrantSettings(
                qdrant_url=self._environment["WEBHOOK_QDRANT_URL"],
                qdrant_api_key=Secret(self._environment.get("WEBHOOK_QDRANT_API_KEY", "")),
            )
        )
        try:
            yield client
        finally:
            await client.close()


async def _scroll(client: AsyncQdrantClient, collection: str) -> AsyncIterator[Point]:
    offset: Any = None
    while True:
        found, offset = await client.scroll(
            collection, limit=1000, offset=offset, with_payload=_FIELDS
        )
        for record in found:
            if record.payload:
                yield Point(**record.payload)
        if offset is None:
            return


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
