"""A store that was lost is filled again: the visible documents of a target become items of a job."""

import uuid

import asyncpg

from shared.jobs.transfers import transfers
from shared.pipeline.lanes import Lane

# Without a content hash a document is never taken for unchanged, and not found lost a second time: whoever comes
# second, another process or the next look, waits for the row locks and then finds nothing to do.
_REQUEUE = f"""
WITH wanted AS MATERIALIZED (
  SELECT document_id, fence, live_version, url, domain, crawl_id FROM webhook.documents
  WHERE target = $1 AND live_version IS NOT NULL AND content_hash IS NOT NULL
  ORDER BY document_id FOR UPDATE),
forgotten AS (  -- live under that version at once, so that nobody takes its new points for hidden ones
  UPDATE webhook.documents d SET content_hash = NULL, live_version = w.fence
  FROM wanted w WHERE d.target = $1 AND d.document_id = w.document_id),
{transfers(Lane.NORMAL)}
SELECT count(*) FROM transfers
"""


class Recovery:
    """Brings lost documents back. Raises DependencyError when Postgres is away."""

    def __init__(self, pool: asyncpg.Pool, timeout: float) -> None:
        """`timeout` of a batch message in one stage, in seconds."""
        self._pool = pool
        self._timeout = timeout

    async def requeue_lost(self, target: str) -> int:
        """Queue the visible documents of a target whose points are lost; how many that were. Safe to repeat."""
        return int(await self._pool.fetchval(_REQUEUE, target, str(uuid.uuid4()), self._timeout))
