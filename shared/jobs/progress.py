"""The progress of items, as the stages record it: started, passed on, ended, queued for a retry.

Every write names (job, position, release) and changes only items that are `released` under that
number: a copy that a newer release has replaced changes nothing. Items are locked before jobs, each
in key order.
"""

from collections.abc import Sequence

import asyncpg
import msgspec

from shared.jobs.model import FinishedJob
from shared.pipeline.entries import Entry
from shared.pipeline.messages import DocumentRef
from shared.pipeline.outcomes import ItemState
from shared.pipeline.stages import StageName

# $1..$3 of every statement: the keys of its items.
_CURRENT = """
current AS MATERIALIZED (
  SELECT i.job_id, i.position, k.ordinal FROM webhook.job_items i
  JOIN unnest($1::uuid[], $2::int[], $3::bigint[])
    WITH ORDINALITY AS k(job_id, position, release, ordinal)
    ON i.job_id = k.job_id AND i.position = k.position
  WHERE i.state = 'released' AND i.release = k.release
  ORDER BY i.job_id, i.position FOR UPDATE OF i)
"""

# Postgres runs `running`, which is not referenced, after the main statement: items are locked
# before jobs, and jobs in key order, too.
_START = f"""
WITH {_CURRENT},
waiting AS MATERIALIZED (
  SELECT job_id FROM webhook.jobs WHERE job_id = ANY ($1::uuid[]) AND status = 'queued'
  ORDER BY job_id FOR UPDATE),
running AS (
  UPDATE webhook.jobs j SET status = 'running', started_at = now()
  FROM waiting w WHERE j.job_id = w.job_id)
UPDATE webhook.job_items i
SET stage = $4, progress_at = now(), stages = i.stages || jsonb_build_object(
      $4::text, jsonb_build_object(
        'started_at', clock_timestamp(), 'worker', $5::text,
        'attempts', coalesce((i.stages #>> ARRAY[$4::text, 'attempts'])::int, 0) + 1))
FROM current c WHERE i.job_id = c.job_id AND i.position = c.position
RETURNING c.ordinal, i.attempts
"""

_PASS_ON = f"""
WITH {_CURRENT}
UPDATE webhook.job_items i
SET stages = jsonb_set(i.stages, ARRAY[$4::text, 'finished_at'], to_jsonb(clock_timestamp())),
    chunks = n.chunks, cached = n.cached, progress_at = now()
FROM current c
JOIN unnest($5::int[], $6::int[]) WITH ORDINALITY AS n(chunks, cached, ordinal) USING (ordinal)
WHERE i.job_id = c.job_id AND i.position = c.position
RETURNING c.ordinal
"""

_RETRY = f"""
WITH {_CURRENT}
UPDATE webhook.job_items i
SET state = 'queued', due_at = now() + make_interval(secs => n.delay),
    attempts = i.attempts + n.attempts, error = n.reason
FROM current c
JOIN unnest($4::float8[], $5::int[], $6::text[])
  WITH ORDINALITY AS n(delay, attempts, reason, ordinal) USING (ordinal)
WHERE i.job_id = c.job_id AND i.position = c.position
"""

# Adds `counts` (job_id, succeeded, failed, cancelled, chunks, inputs_saved) to the jobs. A job
# whose counts reach its total is finished, and its callback becomes due.
COUNTED = """
locked AS MATERIALIZED (
  SELECT j.job_id, j.total, j.succeeded + c.succeeded AS succeeded, j.failed + c.failed AS failed,
         j.cancelled + c.cancelled AS cancelled, j.chunks + c.chunks AS chunks,
         j.inputs_saved + c.inputs_saved AS inputs_saved
  FROM webhook.jobs j JOIN counts c USING (job_id) ORDER BY j.job_id FOR UPDATE OF j),
counted AS (
  UPDATE webhook.jobs j
  SET succeeded = l.succeeded, failed = l.failed, cancelled = l.cancelled,
      chunks = l.chunks, inputs_saved = l.inputs_saved,
      finished_at = CASE WHEN l.succeeded + l.failed + l.cancelled = l.total
                         THEN clock_timestamp() END,
      callback_due_at = CASE WHEN l.succeeded + l.failed + l.cancelled = l.total
                                  AND j.callback_url IS NOT NULL
                             THEN clock_timestamp() END,
      callback_attempts = 0,
      status = CASE WHEN l.succeeded + l.failed + l.cancelled < l.total THEN j.status
                    WHEN l.failed = 0 AND l.cancelled = 0 THEN 'succeeded'
                    WHEN l.succeeded > 0 THEN 'partial'
                    WHEN l.failed > 0 THEN 'failed'
                    ELSE 'cancelled' END
  FROM locked l WHERE j.job_id = l.job_id
  RETURNING j.*)
"""

# The jobs that `counted` has finished, as FinishedJob.
FINISHED = """
(SELECT jsonb_agg(jsonb_build_object(
   'job_id', job_id, 'kind', kind, 'status', status, 'crawl_id', crawl_id, 'request_id', request_id,
   'total', total, 'succeeded', succeeded, 'failed', failed, 'cancelled', cancelled,
   'chunks', chunks, 'inputs_saved', inputs_saved,
   'duration_ms', extract(epoch FROM finished_at - created_at) * 1000))
 FROM counted WHERE finished_at IS NOT NULL)"""

_END = f"""
WITH {_CURRENT},
ended AS (
  UPDATE webhook.job_items i
  SET state = n.state, code = n.code, error = n.error, chunks = coalesce(n.chunks, i.chunks),
      attempts = i.attempts + n.attempts, finished_at = clock_timestamp(),
      stages = jsonb_set(i.stages, ARRAY[$4::text, 'finished_at'], to_jsonb(clock_timestamp()))
  FROM current c
  JOIN unnest($6::text[], $7::int[], $8::text[], $9::text[], $10::int[])
       WITH ORDINALITY AS n(state, chunks, code, error, attempts, ordinal) USING (ordinal)
  WHERE i.job_id = c.job_id AND i.position = c.position
  RETURNING i.*, c.ordinal,
            coalesce((i.stages #>> '{{chunker,started_at}}')::timestamptz, i.accepted_at)
              AS started_at),
dead AS (
  INSERT INTO webhook.dead_letters
    (job_id, position, document_id, version, url, stage, code, error, attempts, deliveries)
  SELECT job_id, position, document_id, version, url, $4, code, error, attempts, $5
  FROM ended WHERE state = 'failed'),
dropped AS (  -- texts that are not needed any more
  DELETE FROM webhook.payloads p USING ended e
  WHERE p.version = e.version AND e.state IN ('unchanged', 'superseded', 'cancelled')
    AND NOT EXISTS (SELECT 1 FROM webhook.documents d WHERE d.live_version = e.version)),
counts AS (
  SELECT job_id, count(*) FILTER (WHERE state NOT IN ('failed', 'cancelled')) AS succeeded,
         count(*) FILTER (WHERE state = 'failed') AS failed,
         count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
         coalesce(sum(chunks) FILTER (WHERE state NOT IN ('failed', 'cancelled')), 0) AS chunks,
         coalesce(sum(CASE WHEN state = 'unchanged' THEN chunks ELSE cached END)
                  FILTER (WHERE state NOT IN ('failed', 'cancelled')), 0) AS inputs_saved
  FROM ended GROUP BY job_id),
{COUNTED}
SELECT (SELECT jsonb_agg(jsonb_build_object(
          'ordinal', ordinal,
          'duration_ms', extract(epoch FROM finished_at - started_at) * 1000,
          'queued_ms', extract(epoch FROM started_at - accepted_at) * 1000)) FROM ended) AS ended,
       {FINISHED} AS finished
"""


_DEAD_LETTER_RAW = """
INSERT INTO webhook.dead_letters (stage, code, error, deliveries, header, body, entry)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (entry) DO NOTHING  -- a worker may crash after this, before it removes the entry
"""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one item. A failed one has a code and an error, and becomes a dead letter."""

    ref: DocumentRef
    state: ItemState
    chunks: int | None = None
    code: str | None = None
    error: str | None = None
    attempts: int = 0  # to be added


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """The changes of `end`: items with their milliseconds since the first stage and before it, and
    finished jobs.
    """

    items: list[tuple[Ended, float, float]]
    jobs: list[FinishedJob]


class Postponed(msgspec.Struct, frozen=True, kw_only=True):
    """An item to queue again, due after `delay` seconds."""

    ref: DocumentRef
    delay: float
    reason: str
    attempts: int = 0  # to be added: 1 if the document is at fault, 0 if a dependency is


class _EndedRow(msgspec.Struct, frozen=True, kw_only=True):
    ordinal: int
    duration_ms: float
    queued_ms: float


class Progress:
    """The progress statements of one stage.

    Each raises DependencyError when Postgres is unavailable.
    """

    def __init__(self, pool: asyncpg.Pool, stage: StageName, worker: str) -> None:
        self._pool = pool
        self._stage = stage
        self._worker = worker

    async def start(self, refs: Sequence[DocumentRef]) -> dict[int, int]:
        """Record that this stage has started the items.

        Returns the attempts so far by index in `refs`, of current items only.
        """
        rows = await self._pool.fetch(_START, *_keys(refs), self._stage, self._worker)
        return {row["ordinal"] - 1: row["attempts"] for row in rows}

    async def pass_on(
        self, refs: Sequence[DocumentRef], counts: Sequence[tuple[int, int | None]]
    ) -> set[int]:
        """Record that this stage has finished the items; returns the indexes of those still
        current.

        `counts`: for each item its chunks, and how many of their vectors came from the cache.
        """
        chunks, cached = [count[0] for count in counts], [count[1] for count in counts]
        rows = await self._pool.fetch(_PASS_ON, *_keys(refs), self._stage, chunks, cached)
        return {row["ordinal"] - 1 for row in rows}

    async def postpone(self, items: Sequence[Postponed]) -> None:
        """Queue the items again."""
        await self._pool.execute(
            _RETRY,
            *_keys([item.ref for item in items]),
            [item.delay for item in items],
            [item.attempts for item in items],
            [item.reason for item in items],
        )

    async def end(self, items: Sequence[Ended], deliveries: int) -> Ending:
        """End the items that are current, and count them in their jobs."""
        row = await self._pool.fetchrow(
            _END, *_keys([item.ref for item in items]), self._stage, deliveries,
            [item.state for item in items],
            [item.chunks for item in items],
            [item.code for item in items],
            [item.error for item in items],
            [item.attempts for item in items],
        )  # fmt: skip
        assert row is not None
        times = msgspec.convert(row["ended"] or [], list[_EndedRow])
        return Ending(
            items=[(items[t.ordinal - 1], t.duration_ms, t.queued_ms) for t in times],
            jobs=msgspec.convert(row["finished"] or [], list[FinishedJob]),
        )

    async def dead_letter(self, entry: Entry, error: str) -> None:
        """Keep an entry that cannot be read as a raw dead letter; its items come back by the last
        resort.
        """
        await self._pool.execute(
            _DEAD_LETTER_RAW,
            self._stage,
            "malformed",
            error,
            entry.deliveries,
            entry.header,
            entry.body,
            f"{entry.stream} {entry.id}",
        )


def _keys(refs: Sequence[DocumentRef]) -> tuple[list[str], list[int], list[int]]:
    return [r.job_id for r in refs], [r.position for r in refs], [r.release for r in refs]
