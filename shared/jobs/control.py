"""What a person does to a job: try again what failed, cancel what has not started."""

import asyncpg
import msgspec

from shared.jobs.model import FinishedJob
from shared.jobs.progress import COUNTED, FINISHED

# A failed item whose document a later version has overtaken stays as it is, and so does one without a text.
_RETRY = """
WITH again AS (
  UPDATE webhook.job_items i
  SET state = 'queued', due_at = now(), attempts = 0, code = NULL, error = NULL, finished_at = NULL
  FROM (SELECT job_id, position FROM webhook.job_items
        WHERE job_id = $1 AND state = 'failed' ORDER BY position FOR UPDATE) f
  WHERE i.job_id = f.job_id AND i.position = f.position
    AND (i.action = 'delete' OR EXISTS (SELECT 1 FROM webhook.payloads p WHERE p.version = i.version))
    AND NOT EXISTS (
      SELECT 1 FROM webhook.documents d JOIN webhook.targets t USING (target)
      WHERE d.document_id = i.document_id AND t.collection = i.collection AND t.live AND d.fence > i.version)
  RETURNING i.job_id, i.position),
letters AS (
  UPDATE webhook.dead_letters l SET replayed_at = now() FROM again a
  WHERE l.job_id = a.job_id AND l.position = a.position AND l.replayed_at IS NULL)
UPDATE webhook.jobs SET failed = failed - n, status = 'running', finished_at = NULL
FROM (SELECT count(*) AS n FROM again) c WHERE job_id = $1 AND n > 0 RETURNING n
"""

_CANCEL = f"""
WITH cancelled AS (
  UPDATE webhook.job_items i SET state = 'cancelled', finished_at = now()
  FROM (SELECT job_id, position FROM webhook.job_items
        WHERE job_id = $1 AND state = 'queued' ORDER BY position FOR UPDATE) q
  WHERE i.job_id = q.job_id AND i.position = q.position
  RETURNING i.job_id, i.version),
dropped AS (DELETE FROM webhook.payloads p USING cancelled c WHERE p.version = c.version),
counts AS (
  SELECT job_id, 0 AS succeeded, 0 AS failed, count(*) AS cancelled FROM cancelled GROUP BY job_id),
{COUNTED}
SELECT (SELECT count(*) FROM cancelled) AS cancelled, {FINISHED} AS finished
"""


class Cancellation(msgspec.Struct, frozen=True, kw_only=True):
    """How many items were cancelled, and the job if that finished it."""

    cancelled: int
    jobs: list[FinishedJob]


class JobControl:
    """Changes to jobs. Raises DependencyError when Postgres is away."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def retry_failed(self, job_id: str) -> int:
        """Queue again every failed item that can still succeed; returns how many."""
        return int(await self._pool.fetchval(_RETRY, job_id) or 0)

    async def cancel(self, job_id: str) -> Cancellation:
        """Cancel every item that waits in the queue; what is in the streams goes on."""
        row = await self._pool.fetchrow(_CANCEL, job_id)
        assert row is not None
        return Cancellation(cancelled=row["cancelled"], jobs=msgspec.convert(row["finished"] or [], list[FinishedJob]))
