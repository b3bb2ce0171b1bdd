"""Reindexes: filling another target of a collection until it equals the live one, then switching to
it.

Each step is one statement that changes nothing unless the reindex is in the state that its caller
read. So two processes may attempt a step, and a step may be interrupted anywhere.
docs/decisions/0010-switching-the-live-target.md explains why no document is lost.
"""

import datetime as dt
import enum
import uuid
from typing import NamedTuple

import asyncpg
import msgspec

from shared.jobs.transfers import transfers
from shared.pipeline.lanes import Lane

_ROWS = 50_000  # of the source, read by one statement: far below its time limit


class Phase(enum.StrEnum):
    """The phases of a reindex; the last two are final."""

    FILLING = "filling"  # passes over the live documents; the pipeline continues
    PAUSING = "pausing"  # only transfers are released, until both targets are equal
    SWITCHED = "switched"
    CANCELLED = "cancelled"


# Row n of the target of reindex `r` for row s of its source. A document differs if the target lacks
# it or has an older version.
_TARGETS_ROW = """
LEFT JOIN webhook.documents n ON n.target = r.target AND n.document_id = s.document_id"""
_DIFFERS = "(n.document_id IS NULL OR n.fence < s.fence)"

_IS_IN_FLIGHT = """
EXISTS (SELECT FROM webhook.job_items i WHERE i.state = 'released' AND i.collection = r.collection
        AND i.target IS DISTINCT FROM r.target)"""

_FAILED = f"""
(SELECT count(DISTINCT i.document_id) FROM webhook.job_items i
 JOIN webhook.documents s
   ON s.target = r.source AND s.document_id = i.document_id AND s.fence = i.version
 {_TARGETS_ROW} WHERE i.target = r.target AND i.state = 'failed' AND {_DIFFERS})"""

_OPEN_TRANSFERS = """
(SELECT count(*) FROM webhook.job_items i
 WHERE i.target = r.target AND i.state IN ('queued', 'released'))"""

_IN_PROGRESS = f"""
SELECT r.reindex_id::text, r.collection, r.source, r.target, r.phase, r.skip_failed,
       r.pass, r.pass_documents, r.pass_cursor::text, r.is_pass_done, r.phase_since,
       extract(epoch FROM now() - r.phase_since)::float8 AS phase_seconds,
       now() >= r.resume_at AS is_due, {_OPEN_TRANSFERS} AS open_transfers,
       r.phase = 'pausing' AND {_IS_IN_FLIGHT} AS is_in_flight,
       {_FAILED} AS failed
FROM webhook.reindexes r WHERE r.finished_at IS NULL ORDER BY r.created_at
"""

_PAUSES = "SELECT reindex_id::text, phase_since FROM webhook.reindexes WHERE phase = 'pausing'"

# $1 target, $2 job id, $3 stage timeout, $4 reindex, $5 pass, $6 its cursor, $7 maximum of
# documents, $8 maximum of rows read.
_TRANSFER = f"""
WITH r AS MATERIALIZED (
  SELECT * FROM webhook.reindexes
  WHERE reindex_id = $4 AND target = $1 AND pass = $5 AND pass_cursor IS NOT DISTINCT FROM $6::uuid
    AND NOT is_pass_done AND finished_at IS NULL
  FOR UPDATE),
seen AS MATERIALIZED (
  SELECT s.document_id, s.fence, s.live_version, s.url, s.domain, s.crawl_id
  FROM r, LATERAL (
    SELECT * FROM webhook.documents d
    WHERE d.target = r.source
      AND d.document_id > coalesce(r.pass_cursor, '00000000-0000-0000-0000-000000000000')
    ORDER BY d.document_id LIMIT $8) s),
wanted AS MATERIALIZED (  -- without those whose transfer is in progress or has failed
  SELECT s.* FROM r CROSS JOIN seen s {_TARGETS_ROW}
  WHERE {_DIFFERS} AND NOT EXISTS (
    SELECT FROM webhook.job_items i WHERE i.document_id = s.document_id AND i.version = s.fence
    AND i.target = r.target AND i.state IN ('queued', 'released', 'failed'))
  ORDER BY s.document_id LIMIT $7),
{transfers(Lane.LOW)},
found AS (
  SELECT (SELECT count(*) FROM wanted) AS documents,
         (SELECT count(*) FROM seen) AS rows,
         (SELECT document_id FROM wanted ORDER BY 1 DESC LIMIT 1) AS last_wanted,
         (SELECT document_id FROM seen ORDER BY 1 DESC LIMIT 1) AS last_seen)
UPDATE webhook.reindexes u
SET pass_cursor = coalesce(
      CASE WHEN f.documents < $7 THEN f.last_seen ELSE f.last_wanted END, r.pass_cursor),
    pass_documents = r.pass_documents + f.documents, transferred = r.transferred + f.documents,
    is_pass_done = f.documents < $7 AND f.rows < $8
FROM r, found f WHERE u.reindex_id = r.reindex_id
RETURNING f.documents
"""

# Every change of phase starts another pass. $4: seconds until the next step.
_ENTER = """
UPDATE webhook.reindexes
SET phase_since = CASE WHEN phase = $3 THEN phase_since ELSE now() END, phase = $3,
    resume_at = now() + make_interval(secs => $4), error = $5,
    pass = pass + 1, pass_cursor = NULL, pass_documents = 0, is_pass_done = false
WHERE reindex_id = $1 AND pass = $2 AND finished_at IS NULL
"""

# Requires that a whole pass, made during the pause with nothing in flight, found no difference.
_SWITCH = f"""
WITH r AS MATERIALIZED (
  SELECT * FROM webhook.reindexes r
  WHERE r.reindex_id = $1 AND r.pass = $2 AND r.phase = 'pausing'
    AND r.is_pass_done AND r.pass_documents = 0
    AND NOT {_IS_IN_FLIGHT} AND {_OPEN_TRANSFERS} = 0 AND (r.skip_failed OR {_FAILED} = 0)
  FOR UPDATE),
retired AS (
  UPDATE webhook.targets t SET live = false, retired_at = now()
  FROM r WHERE t.target = r.source AND t.live
  RETURNING 1),
made_live AS (  -- after `retired`: only one target of a collection can be live
  UPDATE webhook.targets t SET live = true, retired_at = NULL
  FROM r, retired WHERE t.target = r.target
  RETURNING 1)
UPDATE webhook.reindexes u
SET phase = 'switched', phase_since = now(), finished_at = now(), error = NULL
FROM r, made_live WHERE u.reindex_id = r.reindex_id
"""

_START = """
INSERT INTO webhook.reindexes (reindex_id, collection, source, target, is_rollback, skip_failed)
SELECT $1, t.collection, s.target, t.target, $3, $4
FROM webhook.targets t JOIN webhook.targets s ON s.collection = t.collection AND s.live
WHERE t.target = $2 AND NOT t.live AND t.dropped_at IS NULL
RETURNING reindex_id
"""

# For a rollback: the target that served the collection last, with its present embedding server.
_LAST_RETIRED = """
UPDATE webhook.targets SET tei_url = coalesce($2, tei_url)
WHERE target = (SELECT target FROM webhook.targets
                WHERE collection = $1 AND retired_at IS NOT NULL AND dropped_at IS NULL
                ORDER BY retired_at DESC LIMIT 1)
RETURNING target
"""

# A new target is dropped; one that served the collection before is kept for another attempt.
_CANCEL = """
WITH cancelled AS (
  UPDATE webhook.reindexes SET phase = 'cancelled', phase_since = now(), finished_at = now()
  WHERE collection = $1 AND finished_at IS NULL RETURNING reindex_id, target),
dropped AS (
  UPDATE webhook.targets t SET dropped_at = now()
  FROM cancelled c WHERE t.target = c.target AND t.retired_at IS NULL)
SELECT target FROM cancelled
"""

# A repeated cancellation does the rest of one that was interrupted.
_LAST_CANCELLED = """
SELECT target FROM (
  SELECT target, phase FROM webhook.reindexes WHERE collection = $1
  ORDER BY created_at DESC LIMIT 1) latest
WHERE phase = 'cancelled'
"""

_IN_STREAMS = "SELECT count(*) FROM webhook.job_items WHERE target = $1 AND state = 'released'"

_QUEUED_JOBS = (
    "SELECT DISTINCT job_id::text FROM webhook.job_items WHERE target = $1 AND state = 'queued'"
)

_SKIP_FAILED = """
UPDATE webhook.reindexes SET skip_failed = true, resume_at = now()
WHERE collection = $1 AND finished_at IS NULL
"""

_STATES = f"""
SELECT r.reindex_id::text, r.collection, r.source, r.target, r.is_rollback, r.skip_failed, r.phase,
       r.pass, r.transferred,
       CASE WHEN r.finished_at IS NULL THEN {_OPEN_TRANSFERS} ELSE 0 END AS open_transfers,
       (SELECT count(*) FROM webhook.documents s WHERE s.target = r.source) AS documents,
       CASE WHEN r.finished_at IS NULL THEN
         (SELECT count(*) FROM webhook.documents s {_TARGETS_ROW}
          WHERE s.target = r.source AND {_DIFFERS})
         ELSE 0 END AS missing,
       CASE WHEN r.finished_at IS NULL THEN {_FAILED} ELSE 0 END AS failed,
       coalesce(r.error, CASE WHEN r.finished_at IS NULL THEN
         (SELECT i.error FROM webhook.job_items i
          WHERE i.target = r.target AND i.state = 'queued' AND i.error IS NOT NULL LIMIT 1) END)
         AS error,
       r.created_at, r.finished_at
FROM (SELECT DISTINCT ON (collection) * FROM webhook.reindexes
      WHERE $1::text IS NULL OR collection = $1
      ORDER BY collection, created_at DESC) r
ORDER BY r.created_at DESC
"""


class Pause(NamedTuple):
    """One pause of one reindex, identified by its start."""

    reindex_id: str
    since: dt.datetime


class OpenReindex(msgspec.Struct, frozen=True, kw_only=True):
    """A reindex that has not ended: the state that decides its next step."""

    reindex_id: str
    collection: str
    source: str
    target: str
    phase: Phase
    skip_failed: bool
    phase_since: dt.datetime
    phase_seconds: float  # since then
    is_due: bool  # its delay is over
    # The present pass over the documents of the source.
    pass_: int = msgspec.field(name="pass")
    pass_cursor: str | None
    pass_documents: int  # found different by this pass, so far
    is_pass_done: bool
    open_transfers: int  # queued or released
    is_in_flight: bool  # an item of the source is released; False outside the pause
    failed: int  # documents that differ because their transfer failed

    @property
    def pause(self) -> Pause:
        """Its pause, if it is pausing."""
        return Pause(self.reindex_id, self.phase_since)


class ReindexState(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a reindex."""

    reindex_id: str
    collection: str
    source: str
    target: str
    is_rollback: bool
    skip_failed: bool
    phase: Phase
    pass_: int = msgspec.field(name="pass")
    documents: int  # of the source, including deleted ones
    missing: int  # of these, not yet in the target
    transferred: int  # documents queued for the target, in all passes
    open_transfers: int  # of these, not ended
    failed: int  # documents that could not be transferred
    error: str | None  # why it waits, or why a transfer is retried
    created_at: dt.datetime
    finished_at: dt.datetime | None


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """A cancelled reindex, and what is left of it."""

    target: str  # that it was filling
    is_repeated: bool  # it was cancelled before
    jobs: list[str]  # that have queued transfers
    discarded: int  # transfers in the streams: the stages discard them


class Reindexes:
    """The reindexes in Postgres. Raises DependencyError when it is unavailable."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def states(self, collection: str | None = None) -> list[ReindexState]:
        """The last reindex of each collection, newest first.

        Reads whole registries: a second for a million documents.
        """
        rows = await self._pool.fetch(_STATES, collection)
        return [msgspec.convert(dict(row), ReindexState) for row in rows]

    async def start(self, target: str, *, is_rollback: bool, skip_failed: bool) -> bool:
        """Start to fill a target; returns False if it is live or dropped.

        Raises asyncpg.UniqueViolationError if its collection has a reindex in progress.
        """
        started = await self._pool.fetchval(
            _START, str(uuid.uuid4()), target, is_rollback, skip_failed
        )
        return started is not None

    async def last_retired(self, collection: str, tei_url: str | None) -> str | None:
        """The target that served the collection before; `tei_url`, if given, becomes its server."""
        target: str | None = await self._pool.fetchval(_LAST_RETIRED, collection, tei_url)
        return target

    async def cancel(self, collection: str) -> Cancelled | None:
        """Cancel the reindex of a collection; may be repeated.

        None if the last reindex of the collection has switched, or there was none.
        """
        target = await self._pool.fetchval(_CANCEL, collection)
        is_repeated = target is None
        if is_repeated:
            target = await self._pool.fetchval(_LAST_CANCELLED, collection)
        if target is None:
            return None
        # Not before: until the reindex is cancelled, more transfers may be queued.
        return Cancelled(
            target=target,
            is_repeated=is_repeated,
            jobs=[row["job_id"] for row in await self._pool.fetch(_QUEUED_JOBS, target)],
            discarded=await self._pool.fetchval(_IN_STREAMS, target),
        )

    async def skip_failed(self, collection: str) -> bool:
        """Let the reindex of a collection switch without failed documents; False without one."""
        return (await self._pool.execute(_SKIP_FAILED, collection)).endswith(" 1")

    async def pauses(self) -> frozenset[Pause]:
        """The pauses that have not ended."""
        return frozenset(Pause(*row) for row in await self._pool.fetch(_PAUSES))

    async def in_progress(self) -> list[OpenReindex]:
        """The reindexes that have not ended, oldest first."""
        return [
            msgspec.convert(dict(row), OpenReindex) for row in await self._pool.fetch(_IN_PROGRESS)
        ]

    async def transfer(self, reindex: OpenReindex, limit: int, timeout: float) -> int:
        """Queue at most `limit` documents of this pass as items of a job; returns how many.

        `timeout`: of a batch message in one stage, in seconds.
        """
        queued = await self._pool.fetchval(
            _TRANSFER,
            reindex.target,
            str(uuid.uuid4()),
            timeout,
            reindex.reindex_id,
            reindex.pass_,
            reindex.pass_cursor,
            limit,
            _ROWS,
        )
        return int(queued or 0)

    async def enter(
        self, reindex: OpenReindex, phase: Phase, *, delay: float = 0.0, error: str | None = None
    ) -> None:
        """Start another pass, in this or another phase, after `delay` seconds."""
        await self._pool.execute(_ENTER, reindex.reindex_id, reindex.pass_, phase, delay, error)

    async def switch(self, reindex: OpenReindex) -> bool:
        """Make the target live, if this pass found no difference and nothing is in flight or
        failed.
        """
        return (await self._pool.execute(_SWITCH, reindex.reindex_id, reindex.pass_)).endswith(" 1")
