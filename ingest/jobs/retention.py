"""Deleting what has passed its retention: jobs, texts, keys, dead letters, metrics rows, cached
embeddings.

Rows are deleted in small batches, so that no statement holds locks for long. Rows that another
session has locked are skipped. Tombstones of deleted documents are never deleted.
"""

import datetime as dt

from shared.service.clients import Connection, PostgresPool

_BATCH = 500  # rows of one statement
_PARTITIONS_AHEAD = (
    2  # days: a partition must exist before its first row, which else goes to the default partition
)
_PARTITION_PREFIX = "operation_metrics_"

# A job with a dead letter that was not replayed is kept, with its texts.
_OLD_JOBS = """
WITH old AS (
  SELECT job_id FROM webhook.jobs j
  WHERE finished_at < now() - make_interval(secs => $1)
    AND NOT EXISTS (
      SELECT 1 FROM webhook.dead_letters l WHERE l.job_id = j.job_id AND l.replayed_at IS NULL)
  ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED),
texts AS (
  DELETE FROM webhook.payloads p USING webhook.job_items i JOIN old USING (job_id)
  WHERE p.version = i.version
    AND NOT EXISTS (SELECT 1 FROM webhook.documents d WHERE d.live_version = p.version))
DELETE FROM webhook.jobs j USING old WHERE j.job_id = old.job_id
"""

# The text of a version that was live when its job was deleted, and has been replaced since.
_OLD_TEXTS = """
DELETE FROM webhook.payloads WHERE version IN (
  SELECT version FROM webhook.payloads p
  WHERE NOT EXISTS (
      SELECT 1 FROM webhook.job_items i
      WHERE i.document_id = p.document_id AND i.version = p.version)
    AND NOT EXISTS (SELECT 1 FROM webhook.documents d WHERE d.live_version = p.version)
    AND NOT EXISTS (
      SELECT 1 FROM webhook.dead_letters l WHERE l.version = p.version AND l.replayed_at IS NULL)
  LIMIT $1 FOR UPDATE SKIP LOCKED)
"""

_OLD_KEYS = """
DELETE FROM webhook.idempotency_keys WHERE (scope, key) IN (
  SELECT scope, key FROM webhook.idempotency_keys WHERE expires_at < now()
  LIMIT $1 FOR UPDATE SKIP LOCKED)
"""

_OLD_DEAD_LETTERS = """
DELETE FROM webhook.dead_letters WHERE id IN (
  SELECT id FROM webhook.dead_letters
  WHERE created_at < now() - make_interval(secs => $1)
    AND (replayed_at IS NOT NULL OR job_id IS NULL)
  LIMIT $2 FOR UPDATE SKIP LOCKED)
"""

_OLD_CRAWL_ENDS = """
DELETE FROM webhook.crawl_ends WHERE crawl_id IN (
  SELECT crawl_id FROM webhook.crawl_ends WHERE ended_at < now() - make_interval(secs => $1)
  LIMIT $2 FOR UPDATE SKIP LOCKED)
"""

# Use is recorded once a week: a shorter retention would delete entries in use.
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

_OLD_ROWS_OF_DEFAULT_PARTITION = """
DELETE FROM webhook.operation_metrics_default WHERE timestamp < now() - make_interval(secs => $1)
"""


async def delete_old_rows(pool: PostgresPool, *, retention: float, cache_retention: float) -> None:
    """Delete what is older than `retention` seconds, and embeddings not used for `cache_retention`
    seconds.

    Raises DependencyError when Postgres is unavailable; then a part may be deleted.
    """
    await _repeat(pool, _OLD_JOBS, retention, _BATCH)
    await _repeat(pool, _OLD_TEXTS, _BATCH)
    await _repeat(pool, _OLD_KEYS, _BATCH)
    await _repeat(pool, _OLD_DEAD_LETTERS, retention, _BATCH)
    await _repeat(pool, _OLD_CRAWL_ENDS, retention, _BATCH)
    await _repeat(pool, _OLD_EMBEDDINGS, cache_retention, _BATCH)


async def move_partitions(connection: Connection, today: dt.date, retention: float) -> None:
    """Create the partitions of operation_metrics for the next days, and drop those older than
    `retention` seconds.

    The caller holds a lock: of two concurrent calls, one would fail.
    """
    existing = {row["relname"] for row in await connection.fetch(_PARTITIONS)}
    for day in (today + dt.timedelta(days=n) for n in range(1, _PARTITIONS_AHEAD + 1)):
        if partition_of(day) not in existing:
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS webhook.{partition_of(day)} "
                "PARTITION OF webhook.operation_metrics "
                f"FOR VALUES FROM ('{day}') TO ('{day + dt.timedelta(days=1)}')"
            )
    oldest = partition_of(today - dt.timedelta(seconds=retention))
    for name in sorted(existing):
        if name.removeprefix(_PARTITION_PREFIX).isdecimal() and name < oldest:
            await connection.execute(f"DROP TABLE IF EXISTS webhook.{name}")
    await connection.execute(_OLD_ROWS_OF_DEFAULT_PARTITION, retention)


def partition_of(day: dt.date) -> str:
    """The name of a day's partition; names sort by day."""
    return f"{_PARTITION_PREFIX}{day:%Y%m%d}"


async def _repeat(pool: PostgresPool, statement: str, *arguments: float) -> None:
    deleted = _BATCH
    while deleted == _BATCH:
        deleted = int((await pool.execute(statement, *arguments)).split()[-1])
