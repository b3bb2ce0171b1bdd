"""A store that was lost is filled again: the visible documents of a target become items of a job.

Each comes as the version that was decided last, with the text of the visible one (they differ where a document came
again unchanged). So what is accepted or under way later still wins, and what was passed over stays passed over.
"""

import uuid

import asyncpg

from shared.jobs.model import JobKind
from shared.messages import Lane

# Without a content hash a document is never taken for unchanged, and not found lost a second time: whoever comes
# second, another process or the next look, waits for the row locks and then finds nothing to do.
_REQUEUE = """
WITH lost AS MATERIALIZED (
  SELECT document_id, fence, live_version, url, domain, crawl_id FROM webhook.documents
  WHERE target = $1 AND live_version IS NOT NULL AND content_hash IS NOT NULL
  ORDER BY document_id FOR UPDATE),
forgotten AS (  -- live under that version at once, so that nobody takes its new points for hidden ones
  UPDATE webhook.documents d SET content_hash = NULL, live_version = l.fence
  FROM lost l WHERE d.target = $1 AND d.document_id = l.document_id),
texts AS (
  INSERT INTO webhook.payloads (version, document_id, body)
  SELECT l.fence, l.document_id, p.body FROM lost l JOIN webhook.payloads p ON p.version = l.live_version
  ON CONFLICT (version) DO NOTHING),
job AS (
  INSERT INTO webhook.jobs (job_id, kind, lane, collection, timeout, total)
  SELECT $2::uuid, $3, $4, t.collection, $5, (SELECT count(*) FROM lost) FROM webhook.targets t
  WHERE t.target = $1 AND EXISTS (SELECT FROM lost)
  RETURNING collection)
INSERT INTO webhook.job_items
  (job_id, position, state, lane, collection, target, source, domain, document_id, version, url, crawl_id)
SELECT $2, row_number() OVER (ORDER BY l.document_id) - 1, 'queued', $4, job.collection, $1, $2::text, l.domain,
       l.document_id, l.fence, l.url, l.crawl_id
FROM lost l, job
"""


class Recovery:
    """Brings lost documents back. Raises DependencyError when Postgres is away."""

    def __init__(self, pool: asyncpg.Pool, timeout: float) -> None:
        """`timeout` of a batch message in one stage, in seconds."""
        self._pool = pool
        self._timeout = timeout

    async def requeue_lost(self, target: str) -> int:
        """Queue the visible documents of a target whose points are lost; how many that were. Safe to repeat."""
        status = await self._pool.execute(
            _REQUEUE, target, str(uuid.uuid4()), JobKind.REINDEX, Lane.NORMAL, self._timeout
        )
        return int(status.split()[-1])
