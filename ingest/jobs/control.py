"""Changes to a job: retry its failed documents, cancel its queued ones."""

import asyncpg
import msgspec

from ingest.jobs.dead_letters import LetterFilter
from ingest.jobs.replay import replay
from shared.jobs.model import FinishedJob
from shared.jobs.progress import COUNTED, FINISHED

_CANCEL = f"""
WITH cancelled AS (
  UPDATE webhook.job_items i SET state = 'cancelled', finished_at = now()
  FROM (SELECT job_id, position FROM webhook.job_items
        WHERE job_id = $1 AND state = 'queued' ORDER BY position FOR UPDATE) q
  WHERE i.job_id = q.job_id AND i.position = q.position
  RETURNING i.job_id, i.version),
dropped AS (
  DELETE FROM webhook.payloads p USING cancelled c
  WHERE p.version = c.version
    AND NOT EXISTS (SELECT 1 FROM webhook.documents d WHERE d.live_version = p.version)),
counts AS (
  SELECT job_id, 0 AS succeeded, 0 AS failed, count(*) AS cancelled, 0 AS chunks, 0 AS inputs_saved
  FROM cancelled GROUP BY job_id),
{COUNTED}
SELECT (SELECT count(*) FROM cancelled) AS cancelled, {FINISHED} AS finished
"""


class Cancellation(msgspec.Struct, frozen=True, kw_only=True):
    """The number of cancelled items, and the job if that finished it."""

    cancelled: int
    jobs: list[FinishedJob]


class JobControl:
    """Changes to jobs. Raises DependencyError when Postgres is unavailable."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def retry_failed(self, job_id: str) -> int:
        """Queue every failed item that can still succeed; returns how many."""
        return (await replay(self._pool, LetterFilter(job_id=job_id))).replayed

    async def cancel(self, job_id: str) -> Cancellation:
        """Cancel every queued item; items in the streams continue."""
        row = await self._pool.fetchrow(_CANCEL, job_id)
        assert row is not None
        return Cancellation(
            cancelled=row["cancelled"],
            jobs=msgspec.convert(row["finished"] or [], list[FinishedJob]),
        )
