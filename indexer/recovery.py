"""Refills a collection that was lost: the visible documents of its target become items of jobs,
slice by slice.
"""

import uuid

import asyncpg
import msgspec

from shared.jobs.transfers import transfers
from shared.pipeline.lanes import Lane

SLICE = 2000  # documents that one statement looks at: about .2 s, and one job

# A collection that was there again during the recovery, and is missing now, was lost a second time:
# begin anew. While a recovery is open, the documents are not read: many are queued already.
_BEGIN = """
INSERT INTO webhook.recoveries AS r (target)
SELECT $1 WHERE CASE
  WHEN EXISTS (SELECT FROM webhook.recoveries WHERE target = $1 AND NOT is_collection_back)
  THEN false
  ELSE EXISTS (
    SELECT FROM webhook.documents
    WHERE target = $1 AND live_version IS NOT NULL AND content_hash IS NOT NULL) END
ON CONFLICT (target) DO UPDATE SET cursor = NULL, is_collection_back = false
WHERE r.is_collection_back
RETURNING true
"""

_COLLECTIONS_BACK = """
UPDATE webhook.recoveries SET is_collection_back = true
WHERE target = ANY ($1) AND NOT is_collection_back
"""

_OPEN = "SELECT target FROM webhook.recoveries ORDER BY begun_at"

# Queues the documents that `wanted` names and has locked. Without a content hash none of them is
# `unchanged`. Each is live under its new version at once, so that its new points do not count as
# hidden. $1 target, $2 job, $3 stage timeout in seconds.
REQUEUED = f"""forgotten AS (
  UPDATE webhook.documents d SET content_hash = NULL, live_version = w.fence
  FROM wanted w WHERE d.target = $1 AND d.document_id = w.document_id),
{transfers(Lane.NORMAL)}"""

# Documents are locked in the order of their ids, as everywhere. One without a content hash is
# queued already, and is not found lost a second time. $4 rows.
_SLICE = f"""
WITH r AS MATERIALIZED (SELECT * FROM webhook.recoveries WHERE target = $1 FOR UPDATE SKIP LOCKED),
seen AS MATERIALIZED (
  SELECT d.document_id FROM r, LATERAL (
    SELECT document_id FROM webhook.documents
    WHERE target = r.target
      AND document_id > coalesce(r.cursor, '00000000-0000-0000-0000-000000000000')
    ORDER BY document_id LIMIT $4) d),
wanted AS MATERIALIZED (
  SELECT d.document_id, d.fence, d.live_version, d.url, d.domain, d.crawl_id
  FROM webhook.documents d JOIN seen USING (document_id)
  WHERE d.target = $1 AND d.live_version IS NOT NULL AND d.content_hash IS NOT NULL
  ORDER BY d.document_id FOR UPDATE OF d),
{REQUEUED},
moved AS (
  UPDATE webhook.recoveries u
  SET cursor = coalesce((SELECT document_id FROM seen ORDER BY 1 DESC LIMIT 1), u.cursor),
      documents = u.documents + (SELECT count(*) FROM wanted)
  FROM r WHERE u.target = r.target
  RETURNING u.documents)
SELECT documents, (SELECT count(*) FROM seen) < $4 AS is_last FROM moved
"""

# Not if the recovery has begun anew meanwhile, whose cursor is null.
_END = """
DELETE FROM webhook.recoveries r WHERE target = $1 AND cursor IS NOT NULL
  AND NOT EXISTS (SELECT FROM webhook.documents d WHERE d.target = $1 AND d.document_id > r.cursor)
"""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a recovery is after a slice."""

    documents: int  # queued so far
    is_last: bool


class Recovery:
    """The recoveries in Postgres. Every call may be repeated, by any process. Raises
    DependencyError if it is down.
    """

    def __init__(self, pool: asyncpg.Pool, timeout: float, rows: int = SLICE) -> None:
        """`timeout` of a batch message in one stage, in seconds; `rows` that one slice looks at."""
        self._pool = pool
        self._timeout = timeout
        self._rows = rows

    async def begin(self, target: str) -> bool:
        """Note that a target's collection is missing. Returns whether a recovery begins, or begins
        anew, with that.
        """
        return bool(await self._pool.fetchval(_BEGIN, target))

    async def collections_back(self, targets: list[str]) -> None:
        """Note that the collections of these targets are there."""
        await self._pool.execute(_COLLECTIONS_BACK, targets)

    async def open(self) -> list[str]:
        """Return the targets whose documents are not all queued yet."""
        return [row["target"] for row in await self._pool.fetch(_OPEN)]

    async def queue_slice(self, target: str) -> Progress | None:
        """Queue the next documents of a recovery; None if there is none, or another process queues
        a slice now.
        """
        row = await self._pool.fetchrow(
            _SLICE, target, str(uuid.uuid4()), self._timeout, self._rows
        )
        if row is None:
            return None
        if row["is_last"]:
            await self._pool.execute(_END, target)
        return Progress(documents=row["documents"], is_last=row["is_last"])
