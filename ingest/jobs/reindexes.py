"""Reindexes: filling another target of a collection until it has all that the live one has, then switching to it.

Each step is one statement that does nothing unless the reindex is as its caller saw it, so a step may be tried by two,
or be cut off anywhere. docs/decisions/0010-switching-the-live-target.md says why this loses nothing.
"""

import datetime as dt
import enum
import uuid
from collections.abc import Sequence
from typing import NamedTuple

import asyncpg
import msgspec

from shared.jobs.transfers import transfers
from shared.pipeline.lanes import Lane

_ROWS = 50_000  # of the source that one statement looks at, so that none comes near its time limit


class Phase(enum.StrEnum):
    """How far a reindex is; the last two are final."""

    FILLING = "filling"  # passes over the live documents; the pipeline goes on as ever
    PAUSING = "pausing"  # nothing but transfers is released, until both targets are equal
    SWITCHED = "switched"
    CANCELLED = "cancelled"


# Row n of the target of reindex `r` beside row s of its source; what differs is what the target has not got.
_TARGETS_ROW = "LEFT JOIN webhook.documents n ON n.target = r.target AND n.document_id = s.document_id"
_DIFFERS = "(n.document_id IS NULL OR n.fence < s.fence)"

_IS_IN_FLIGHT = """
EXISTS (SELECT FROM webhook.job_items i WHERE i.state = 'released' AND i.collection = r.collection
        AND i.target IS DISTINCT FROM r.target)"""

_FAILED = f"""
(SELECT count(DISTINCT i.document_id) FROM webhook.job_items i
 JOIN webhook.documents s ON s.target = r.source AND s.document_id = i.document_id AND s.fence = i.version
 {_TARGETS_ROW} WHERE i.target = r.target AND i.state = 'failed' AND {_DIFFERS})"""

_OPEN_TRANSFERS = """
(SELECT count(*) FROM webhook.job_items i WHERE i.target = r.target AND i.state IN ('queued', 'released'))"""

_UNDER_WAY = f"""
SELECT r.reindex_id::text, r.collection, r.source, r.target, r.phase, r.skip_failed, r.pass, r.pass_documents,
       r.pass_cursor::text, r.is_pass_done, r.phase_since,
       extract(epoch FROM now() - r.phase_since)::float8 AS phase_seconds,
       now() >= r.resume_at AS is_due, {_OPEN_TRANSFERS} AS open_transfers,
       r.phase = 'pausing' AND {_IS_IN_FLIGHT} AS is_in_flight,
       {_FAILED} AS failed
FROM webhook.reindexes r WHERE r.finished_at IS NULL ORDER BY r.created_at
"""

_PAUSES = "SELECT reindex_id::text, phase_since FROM webhook.reindexes WHERE phase = 'pausing'"

# $1 target, $2 job id, $3 stage timeout, $4 reindex, $5 pass, $6 its cursor, $7 documents at most, $8 rows to look at.
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
    WHERE d.target = r.source AND d.document_id > coalesce(r.pass_cursor, '00000000-0000-0000-0000-000000000000')
    ORDER BY d.document_id LIMIT $8) s),
wanted AS MATERIALIZED (  -- but for those whose transfer is under way, or failed
  SELECT s.* FROM r CROSS JOIN seen s {_TARGETS_ROW}
  WHERE {_DIFFERS} AND NOT EXISTS (
    SELECT FROM webhook.job_items i WHERE i.document_id = s.document_id AND i.version = s.fence
    AND i.target = r.target AND i.state IN ('queued', 'released', 'failed'))
  ORDER BY s.document_id LIMIT $7),
{transfers(Lane.LOW)},
found AS (
  SELECT (SELECT count(*) FROM wanted) AS documents, (SELECT count(*) FROM seen) AS rows,
         (SELECT document_id FROM wanted ORDER BY 1 DESC LIMIT 1) AS last_wanted,
         (SELECT document_id FROM seen ORDER BY 1 DESC LIMIT 1) AS last_seen)
UPDATE webhook.reindexes u
SET pass_cursor = coalesce(CASE WHEN f.documents < $7 THEN f.last_seen ELSE f.last_wanted END, r.pass_cursor),
    pass_documents = r.pass_documents + f.documents, transferred = r.transferred + f.documents,
    is_pass_done = f.documents < $7 AND f.rows < $8
FROM r, found f WHERE u.reindex_id = r.reindex_id
RETURNING f.documents
"""

# Every change of phase begins another pass. $4: seconds until anything is done again.
_ENTER = """
UPDATE webhook.reindexes
SET phase_since = CASE WHEN phase = $3 THEN phase_since ELSE now() END, phase = $3,
    resume_at = now() + make_interval(secs => $4), error = $5,
    pass = pass + 1, pass_cursor = NULL, pass_documents = 0, is_pass_done = false
WHERE reindex_id = $1 AND pass = $2 AND finished_at IS NULL
"""

# The pass before it, all of it in the pause and with nothing in flight, found nothing.
_SWITCH = f"""
WITH r AS MATERIALIZED (
  SELECT * FROM webhook.reindexes r
  WHERE r.reindex_id = $1 AND r.pass = $2 AND r.phase = 'pausing' AND r.is_pass_done AND r.pass_documents = 0
    AND NOT {_IS_IN_FLIGHT} AND {_OPEN_TRANSFERS} = 0 AND (r.skip_failed OR {_FAILED} = 0)
  FOR UPDATE),
retired AS (
  UPDATE webhook.targets t SET live = false, retired_at = now() FROM r WHERE t.target = r.source AND t.live
  RETURNING 1),
made_live AS (  -- after the other one, of which there can be only one
  UPDATE webhook.targets t SET live = true, retired_at = NULL FROM r, retired WHERE t.target = r.target
  RETURNING 1)
UPDATE webhook.reindexes u SET phase = 'switched', phase_since = now(), finished_at = now(), error = NULL
FROM r, made_live WHERE u.reindex_id = r.reindex_id
"""

_START = """
INSERT INTO webhook.reindexes (reindex_id, collection, source, target, is_rollback, skip_failed)
SELECT $1, t.collection, s.target, t.target, $3, $4
FROM webhook.targets t JOIN webhook.targets s ON s.collection = t.collection AND s.live
WHERE t.target = $2 AND NOT t.live AND t.dropped_at IS NULL
RETURNING reindex_id
"""

# For the way back: what served the collection last, with the embedding server that it is to have now.
_LAST_RETIRED = """
UPDATE webhook.targets SET tei_url = coalesce($2, tei_url)
WHERE target = (SELECT target FROM webhook.targets
                WHERE collection = $1 AND retired_at IS NOT NULL AND dropped_at IS NULL
                ORDER BY retired_at DESC LIMIT 1)
RETURNING target
"""

# A new target is given up; one that served before stays for another try.
_CANCEL = """
WITH cancelled AS (
  UPDATE webhook.reindexes SET phase = 'cancelled', phase_since = now(), finished_at = now()
  WHERE collection = $1 AND finished_at IS NULL RETURNING reindex_id, target),
dropped AS (
  UPDATE webhook.targets t SET dropped_at = now() FROM cancelled c WHERE t.target = c.target AND t.retired_at IS NULL)
SELECT target FROM cancelled
"""

_QUEUED_JOBS = "SELECT DISTINCT job_id::text FROM webhook.job_items WHERE target = $1 AND state = 'queued'"

_SKIP_FAILED = """
UPDATE webhook.reindexes SET skip_failed = true, resume_at = now() WHERE collection = $1 AND finished_at IS NULL
"""

_STATES = f"""
SELECT r.reindex_id::text, r.collection, r.source, r.target, r.is_rollback, r.skip_failed, r.phase, r.pass,
       r.transferred, CASE WHEN r.finished_at IS NULL THEN {_OPEN_TRANSFERS} ELSE 0 END AS open_transfers,
       (SELECT count(*) FROM webhook.documents s WHERE s.target = r.source) AS documents,
       CASE WHEN r.finished_at IS NULL THEN
         (SELECT count(*) FROM webhook.documents s {_TARGETS_ROW} WHERE s.target = r.source AND {_DIFFERS})
         ELSE 0 END AS missing,
       CASE WHEN r.finished_at IS NULL THEN {_FAILED} ELSE 0 END AS failed,
       coalesce(r.error, CASE WHEN r.finished_at IS NULL THEN
         (SELECT i.error FROM webhook.job_items i WHERE i.target = r.target AND i.state = 'queued'
          AND i.error IS NOT NULL LIMIT 1) END) AS error,
       r.created_at, r.finished_at
FROM (SELECT DISTINCT ON (collection) * FROM webhook.reindexes WHERE $1::text IS NULL OR collection = $1
      ORDER BY collection, created_at DESC) r ORDER BY r.created_at DESC
"""


class Pause(NamedTuple):
    """One pause of one reindex; another one begins at another time."""

    reindex_id: str
    since: dt.datetime


class UnderWay(msgspec.Struct, frozen=True, kw_only=True):
    """A reindex that has not ended, as far as its next step depends on it."""

    reindex_id: str
    collection: str
    source: str
    target: str
    phase: Phase
    skip_failed: bool
    phase_since: dt.datetime
    phase_seconds: float  # since then
    is_due: bool  # it has waited as long as it was to
    # The passes over the documents of the source.
    pass_: int = msgspec.field(name="pass")
    pass_cursor: str | None
    pass_documents: int  # that this pass found to differ, so far
    is_pass_done: bool
    open_transfers: int  # queued or released
    is_in_flight: bool  # something of the collection is released to the source; asked in the pause only
    failed: int  # documents that differ because their transfer failed

    @property
    def pause(self) -> Pause:
        """The pause that it is in, if it is in one."""
        return Pause(self.reindex_id, self.phase_since)


class ReindexState(msgspec.Struct, frozen=True, kw_only=True):
    """A reindex for those who wait for it."""

    reindex_id: str
    collection: str
    source: str
    target: str
    is_rollback: bool
    skip_failed: bool
    phase: Phase
    pass_: int = msgspec.field(name="pass")
    documents: int  # of the source, deleted ones included
    missing: int  # of these, those that the target has not got yet
    transferred: int  # documents queued for the target, in all passes
    open_transfers: int  # of these, those that have not ended
    failed: int  # documents that cannot be transferred as they are
    error: str | None  # what it waits for, or why a transfer is tried again
    created_at: dt.datetime
    finished_at: dt.datetime | None


class Reindexes:
    """The reindexes in Postgres. Raises DependencyError when it is away."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def states(self, collection: str | None = None) -> list[ReindexState]:
        """The last reindex of each collection, the newest first. Reads whole registries: a second for a million."""
        rows = await self._pool.fetch(_STATES, collection)
        return [msgspec.convert(dict(row), ReindexState) for row in rows]

    async def start(self, target: str, *, is_rollback: bool, skip_failed: bool) -> bool:
        """Begin to fill a target that is not live. False if it is, or was dropped.

        Raises asyncpg.UniqueViolationError if its collection has a reindex under way.
        """
        started = await self._pool.fetchval(_START, str(uuid.uuid4()), target, is_rollback, skip_failed)
        return started is not None

    async def last_retired(self, collection: str, tei_url: str | None) -> str | None:
        """The target that served the collection before, which gets `tei_url` if that is given."""
        target: str | None = await self._pool.fetchval(_LAST_RETIRED, collection, tei_url)
        return target

    async def cancel(self, collection: str) -> Sequence[str] | None:
        """Give a collection's reindex up; the jobs that still have transfers queued, None if there is no reindex."""
        target = await self._pool.fetchval(_CANCEL, collection)
        if target is None:
            return None
        # Only now does nobody queue any more.
        return [row["job_id"] for row in await self._pool.fetch(_QUEUED_JOBS, target)]

    async def skip_failed(self, collection: str) -> bool:
        """Have the reindex of a collection switch without what cannot be transferred; False if there is none."""
        return (await self._pool.execute(_SKIP_FAILED, collection)).endswith(" 1")

    async def pauses(self) -> frozenset[Pause]:
        """The pauses that were begun and have not ended."""
        return frozenset(Pause(*row) for row in await self._pool.fetch(_PAUSES))

    async def under_way(self) -> list[UnderWay]:
        """The reindexes that have not ended, the oldest first."""
        return [msgspec.convert(dict(row), UnderWay) for row in await self._pool.fetch(_UNDER_WAY)]

    async def transfer(self, reindex: UnderWay, limit: int, timeout: float) -> int:
        """Queue the next documents of this pass as items of a job, at most `limit`; how many that were.

        `timeout` of a batch message in one stage, in seconds.
        """
        queued = await self._pool.fetchval(
            _TRANSFER, reindex.target, str(uuid.uuid4()), timeout, reindex.reindex_id, reindex.pass_,
            reindex.pass_cursor, limit, _ROWS,
        )  # fmt: skip
        return int(queued or 0)

    async def enter(self, reindex: UnderWay, phase: Phase, *, delay: float = 0.0, error: str | None = None) -> None:
        """Begin another pass, in this or another phase, after `delay` seconds."""
        await self._pool.execute(_ENTER, reindex.reindex_id, reindex.pass_, phase, delay, error)

    async def switch(self, reindex: UnderWay) -> bool:
        """Make the target live, if this pass has found nothing, and nothing is in flight or failed."""
        return (await self._pool.execute(_SWITCH, reindex.reindex_id, reindex.pass_)).endswith(" 1")
