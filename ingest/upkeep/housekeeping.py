"""What grows old goes: finished jobs, texts nobody needs, expired keys, and the day partitions of the metrics.

Everything goes in small batches, so that no statement holds locks for long, and passes over what somebody else has
locked, so that none waits. Tombstones are never removed.
"""

import asyncio
import datetime as dt

import asyncpg
import structlog

from shared.service.clients import Connection, PostgresPool
from shared.service.errors import DependencyError

log = structlog.get_logger()

_LOCK = 0x6D696C6E
_INTERVAL = 600.0
_BATCH = 500
_PARTITIONS_AHEAD = 2  # days; made before a row of that day can end in the default partition
_PARTITION_PREFIX = "operation_metrics_"

# A job with a dead letter that was not replayed stays, and so does its text.
_OLD_JOBS = """
WITH old AS (
  SELECT job_id FROM webhook.jobs j
  WHERE finished_at < now() - make_interval(secs => $1)
    AND NOT EXISTS (SELECT 1 FROM webhook.dead_letters l WHERE l.job_id = j.job_id AND l.replayed_at IS NULL)
  ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED),
texts AS (
  DELETE FROM webhook.payloads p USING webhook.job_items i JOIN old USING (job_id)
  WHERE p.version = i.version
    AND NOT EXISTS (SELECT 1 FROM webhook.documents d WHERE d.live_version = p.version))
DELETE FROM webhook.jobs j USING old WHERE j.job_id = old.job_id
"""

# What a later version replaced as the live one is no job's text any more, once its job is gone.
_OLD_TEXTS = """
DELETE FROM webhook.payloads WHERE version IN (
  SELECT version FROM webhook.payloads p
  WHERE NOT EXISTS (SELECT 1 FROM webhook.job_items i WHERE i.document_id = p.document_id AND i.version = p.version)
    AND NOT EXISTS (SELECT 1 FROM webhook.documents d WHERE d.live_version = p.version)
    AND NOT EXISTS (SELECT 1 FROM webhook.dead_letters l WHERE l.version = p.version AND l.replayed_at IS NULL)
  LIMIT $1 FOR UPDATE SKIP LOCKED)
"""

_OLD_KEYS = """
DELETE FROM webhook.idempotency_keys WHERE (scope, key) IN (
  SELECT scope, key FROM webhook.idempotency_keys WHERE expires_at < now() LIMIT $1 FOR UPDATE SKIP LOCKED)
"""

_OLD_LETTERS = """
DELETE FROM webhook.dead_letters WHERE id IN (
  SELECT id FROM webhook.dead_letters
  WHERE created_at < now() - make_interval(secs => $1) AND (replayed_at IS NOT NULL OR job_id IS NULL)
  LIMIT $2 FOR UPDATE SKIP LOCKED)
"""

_OLD_CRAWL_ENDS = """
DELETE FROM webhook.crawl_ends WHERE crawl_id IN (
  SELECT crawl_id FROM webhook.crawl_ends WHERE ended_at < now() - make_interval(secs => $1)
  LIMIT $2 FOR UPDATE SKIP LOCKED)
"""

# Use is noted once a week, so that what is in use is never older than that.
_OLD_EMBEDDINGS = """
DELETE FROM webhook.embedding_cache WHERE key IN (
  SELECT key FROM webhook.embedding_cache
  WHERE last_used < (now() - greatest(make_interval(secs => $1), interval '8 days'))::date
  LIMIT $2 FOR UPDATE SKIP LOCKED)
"""

_PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'webhook.operation_metrics'::regclass
"""


class Housekeeper:
    """Cleans up every ten minutes; several at once do not disturb each other."""

    def __init__(self, pool: PostgresPool, *, retention: float, cache_retention: float) -> None:
        """Both in seconds; `cache_retention` is that of embeddings."""
        self._pool = pool
        self._retention = retention
        self._cache_retention = cache_retention

    async def run(self) -> None:
        """Clean up until cancelled; what fails is tried again next time."""
        while True:
            try:
                await self.clean_up(dt.datetime.now(dt.UTC).date())
            except (DependencyError, asyncpg.PostgresError) as error:  # the front door stays open without it
                log.warning("Housekeeping interrupted", error=str(error))
            await asyncio.sleep(_INTERVAL)

    async def clean_up(self, today: dt.date) -> None:
        """One round. Raises DependencyError when Postgres is away."""
        async with self._pool.acquire() as connection, connection.transaction():
            # Two at once would make the same partition, and one of them would fail.
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
                return
            await self._move_partitions(connection, today)
        await self._repeat(_OLD_JOBS, self._retention, _BATCH)
        await self._repeat(_OLD_TEXTS, _BATCH)
        await self._repeat(_OLD_KEYS, _BATCH)
        await self._repeat(_OLD_LETTERS, self._retention, _BATCH)
        await self._repeat(_OLD_CRAWL_ENDS, self._retention, _BATCH)
        await self._repeat(_OLD_EMBEDDINGS, self._cache_retention, _BATCH)

    async def _repeat(self, statement: str, *arguments: float) -> None:
        deleted = _BATCH
        while deleted == _BATCH:
            deleted = int((await self._pool.execute(statement, *arguments)).split()[-1])

    async def _move_partitions(self, connection: Connection, today: dt.date) -> None:
        existing = {row["relname"] for row in await connection.fetch(_PARTITIONS)}
        for day in (today + dt.timedelta(days=n) for n in range(1, _PARTITIONS_AHEAD + 1)):
            if partition_of(day) not in existing:
                await connection.execute(
                    f"CREATE TABLE IF NOT EXISTS webhook.{partition_of(day)} PARTITION OF webhook.operation_metrics "
                    f"FOR VALUES FROM ('{day}') TO ('{day + dt.timedelta(days=1)}')"
                )
        oldest = partition_of(today - dt.timedelta(seconds=self._retention))
        for name in sorted(existing):
            if name.removeprefix(_PARTITION_PREFIX).isdecimal() and name < oldest:
                await connection.execute(f"DROP TABLE IF EXISTS webhook.{name}")
        await connection.execute(
            "DELETE FROM webhook.operation_metrics_default WHERE timestamp < now() - make_interval(secs => $1)",
            self._retention,
        )


def partition_of(day: dt.date) -> str:
    """The name of a day's partition; names sort by day."""
    return f"{_PARTITION_PREFIX}{day:%Y%m%d}"
