"""Deleting what has passed its retention: jobs, texts, keys, dead letters, metrics rows, cached
embeddings.

No statement reads or deletes more than some hundred rows, whatever the size of the tables: it holds
locks for moments only, and cannot reach its time limit. Rows that another session has locked are
skipped. Tombstones of deleted documents are never deleted.
"""

import datetime as dt
import random
from collections.abc import Awaitable, Callable, Mapping

from shared.service.clients import Connection, PostgresPool

ROWS = 500  # that one statement looks at
_TEXT_SLICES = 100  # of one round: a pass over ten million texts takes a day and a half
_PARTITIONS_AHEAD = 2  # days: a partition must exist before its first row
_PARTITION_PREFIX = "operation_metrics_"
_LONG_AGO = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NO_ID = "00000000-0000-0000-0000-000000000000"

# The numbers of rows are written into the statements. With parameters the plan for any value
# expects a tenth of the table, and reads all of the tables that it joins. Rows are deleted by their
# place in the file (ctid) where nothing has to be joined.

# $2 and $3 are the last job that was looked at. A job with a dead letter that was not replayed is
# kept, with its texts. The items of a large job are deleted by several statements, the job itself
# by the last one.
_OLD_JOBS = """
WITH looked AS MATERIALIZED (
  SELECT job_id, finished_at FROM webhook.jobs
  WHERE finished_at < now() - make_interval(secs => $1)
    AND finished_at >= $2 AND (finished_at, job_id) > ($2, $3::uuid)
  ORDER BY finished_at, job_id LIMIT {rows}),
old AS MATERIALIZED (
  SELECT j.job_id FROM webhook.jobs j JOIN looked USING (job_id)
  WHERE j.finished_at IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM webhook.dead_letters l WHERE l.job_id = j.job_id AND l.replayed_at IS NULL)
  FOR UPDATE OF j SKIP LOCKED),
picked AS MATERIALIZED (
  SELECT i.job_id, i.position, i.version FROM old, LATERAL (
    SELECT job_id, position, version FROM webhook.job_items
    WHERE job_id = old.job_id ORDER BY position LIMIT {rows}) i
  LIMIT {rows}),
texts AS (
  DELETE FROM webhook.payloads p USING picked i
  WHERE p.version = i.version
    AND NOT EXISTS (SELECT 1 FROM webhook.documents d WHERE d.live_version = p.version)),
items AS (
  DELETE FROM webhook.job_items i USING picked p
  WHERE i.job_id = p.job_id AND i.position = p.position),
ends AS MATERIALIZED (
  SELECT old.job_id, coalesce(max(p.position), -1) AS last
  FROM old LEFT JOIN picked p USING (job_id) GROUP BY old.job_id),
gone AS (
  DELETE FROM webhook.jobs j USING ends e
  WHERE j.job_id = e.job_id AND NOT EXISTS (
    SELECT 1 FROM webhook.job_items i WHERE i.job_id = e.job_id AND i.position > e.last))
SELECT (SELECT count(*) FROM looked) AS looked, (SELECT count(*) FROM picked) AS items,
       l.finished_at, l.job_id::text
FROM (SELECT) AS once
LEFT JOIN (SELECT * FROM looked ORDER BY finished_at DESC, job_id DESC LIMIT 1) l ON true
"""

# The text of a version that was live when its job was deleted, and has been replaced since. $1 is
# the last version that was looked at.
_OLD_TEXTS = """
WITH looked AS MATERIALIZED (
  SELECT version, document_id FROM webhook.payloads
  WHERE version > $1 ORDER BY version LIMIT {rows}),
unneeded AS MATERIALIZED (
  SELECT p.version FROM webhook.payloads p JOIN looked USING (version)
  WHERE NOT EXISTS (
      SELECT 1 FROM webhook.job_items i
      WHERE i.document_id = looked.document_id AND i.version = looked.version)
    AND NOT EXISTS (SELECT 1 FROM webhook.documents d WHERE d.live_version = looked.version)
    AND NOT EXISTS (
      SELECT 1 FROM webhook.dead_letters l
      WHERE l.version = looked.version AND l.replayed_at IS NULL)
  FOR UPDATE OF p SKIP LOCKED),
deleted AS (DELETE FROM webhook.payloads p USING unneeded u WHERE p.version = u.version)
SELECT count(*) AS looked, max(version) AS last FROM looked
"""

_LAST_TEXT = "SELECT coalesce(max(version), 0) FROM webhook.payloads"

_OLD_KEYS = """
DELETE FROM webhook.idempotency_keys WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM webhook.idempotency_keys WHERE expires_at < now() ORDER BY expires_at
  LIMIT {rows} FOR UPDATE SKIP LOCKED))
"""

# Those that are kept lie between the others: $2 is the last one that was looked at.
_OLD_DEAD_LETTERS = """
WITH looked AS MATERIALIZED (
  SELECT id, created_at, replayed_at IS NOT NULL OR job_id IS NULL AS is_settled
  FROM webhook.dead_letters WHERE id > $2 ORDER BY id LIMIT {rows}),
old AS MATERIALIZED (
  SELECT l.id FROM webhook.dead_letters l JOIN looked USING (id)
  WHERE looked.is_settled AND looked.created_at < now() - make_interval(secs => $1)
  FOR UPDATE OF l SKIP LOCKED),
deleted AS (DELETE FROM webhook.dead_letters l USING old WHERE l.id = old.id)
SELECT count(*) AS looked, max(id) AS last FROM looked
"""

# One row for each crawl: few enough to read all.
_OLD_CRAWL_ENDS = """
DELETE FROM webhook.crawl_ends WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM webhook.crawl_ends WHERE ended_at < now() - make_interval(secs => $1)
  LIMIT {rows} FOR UPDATE SKIP LOCKED))
"""

# Use is recorded once a week: a shorter retention would delete entries in use.
_OLD_EMBEDDINGS = """
DELETE FROM webhook.embedding_cache WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM webhook.embedding_cache
  WHERE last_used < (now() - greatest(make_interval(secs => $1), interval '8 days'))::date
  ORDER BY last_used LIMIT {rows} FOR UPDATE SKIP LOCKED))
"""

_PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'webhook.operation_metrics'::regclass
"""

_IS_DEFAULT_EMPTY = "SELECT NOT EXISTS (SELECT FROM webhook.operation_metrics_default)"

# The first rows of the file are the oldest ones.
_OLD_ROWS_OF_DEFAULT_PARTITION = """
DELETE FROM webhook.operation_metrics_default
WHERE ctid = ANY (ARRAY(SELECT ctid FROM webhook.operation_metrics_default LIMIT {rows}))
  AND timestamp < now() - make_interval(secs => $1)
"""

Part = Callable[[], Awaitable[None]]


class Retention:
    """Deletes old rows; several processes may do so at once."""

    def __init__(
        self,
        pool: PostgresPool,
        *,
        retention: float,
        cache_retention: float,
        rows: int = ROWS,
    ) -> None:
        """`retention` in seconds, `cache_retention` in seconds since the last use of an embedding.

        `rows` that one statement looks at.
        """
        self._pool = pool
        self._retention = retention
        self._cache_retention = cache_retention
        self._rows = rows
        self._random = random.Random()  # noqa: S311 - spreads work, guards nothing
        self._text: int | None = None  # the last version that was looked at

    @property
    def parts(self) -> Mapping[str, Part]:
        """What is deleted, by name.

        Each part raises DependencyError when Postgres is unavailable; then some rows are deleted.
        """
        return {
            "jobs": self._jobs,
            "texts": self._texts,
            "keys": lambda: self._repeat(_OLD_KEYS),
            "dead letters": self._dead_letters,
            "crawl ends": lambda: self._repeat(_OLD_CRAWL_ENDS, self._retention),
            "embeddings": lambda: self._repeat(_OLD_EMBEDDINGS, self._cache_retention),
            "metrics": lambda: self._repeat(_OLD_ROWS_OF_DEFAULT_PARTITION, self._retention),
        }

    async def _jobs(self) -> None:
        statement, rows = self._statement(_OLD_JOBS), self._rows
        after = _LONG_AGO, _NO_ID
        while True:
            row = await self._pool.fetchrow(statement, self._retention, *after)
            if row["items"] == rows:
                continue  # the same jobs may have more
            if row["looked"] < rows:
                return
            after = row["finished_at"], row["job_id"]

    async def _texts(self) -> None:
        """Look at some texts, from where the last round ended.

        If there are more than one round reads, the first one begins at random: restarts leave no
        text out.
        """
        if self._text is None:
            last = await self._pool.fetchval(_LAST_TEXT)
            self._text = int(max(0, last - _TEXT_SLICES * self._rows) * self._random.random())
        statement = self._statement(_OLD_TEXTS)
        for _ in range(_TEXT_SLICES):
            row = await self._pool.fetchrow(statement, self._text)
            if row["looked"] < self._rows:
                self._text = 0
                return
            self._text = row["last"]

    async def _dead_letters(self) -> None:
        statement, after = self._statement(_OLD_DEAD_LETTERS), 0
        while True:
            row = await self._pool.fetchrow(statement, self._retention, after)
            if row["looked"] < self._rows:
                return
            after = row["last"]

    async def _repeat(self, text: str, *arguments: float) -> None:
        statement, deleted = self._statement(text), self._rows
        while deleted == self._rows:
            deleted = int((await self._pool.execute(statement, *arguments)).split()[-1])

    def _statement(self, text: str) -> str:
        return text.format(rows=self._rows)


async def move_partitions(connection: Connection, today: dt.date, retention: float) -> None:
    """Create the partitions of operation_metrics for the next days, and drop those older than
    `retention` seconds.

    The caller holds a lock: of two concurrent calls, one would fail.
    """
    existing = {row["relname"] for row in await connection.fetch(_PARTITIONS)}
    # Rows that are in the default partition already would have to move.
    first = 0 if await connection.fetchval(_IS_DEFAULT_EMPTY) else 1
    for day in (today + dt.timedelta(days=n) for n in range(first, _PARTITIONS_AHEAD + 1)):
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


def partition_of(day: dt.date) -> str:
    """The name of a day's partition; names sort by day."""
    return f"{_PARTITION_PREFIX}{day:%Y%m%d}"
