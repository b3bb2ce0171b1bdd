"""The statements of the dispatcher: release the next items, and queue lost items again.

The cost of a pick depends on the items it releases, not on those that wait: a skip scan over the
partial index of queued items finds the next sources after a cursor, then takes a few items of each
(measured: 98,000 items/s with a million queued).
"""

import enum
from collections.abc import Mapping, Sequence

import asyncpg
import msgspec

from ingest.dispatch.sizing import COUNTED_DEPTH
from shared.pipeline.lanes import SMALL_SOURCE, Lane
from shared.pipeline.messages import Action, DocumentRef

_SMALL_SOURCES = 4  # picked at once

# $1 lane, $2 cursor (the last source), $3 sources, $4 items of each source, $5 release number, $6
# lane of the streams.
_PICK = """
WITH RECURSIVE source(name, n) AS (
  (SELECT source, 1 FROM webhook.job_items
   WHERE {due} AND lane = $1 AND source > $2 AND due_at <= now() ORDER BY source LIMIT 1)
  UNION ALL
  SELECT (SELECT i.source FROM webhook.job_items i
          WHERE {due} AND i.lane = $1 AND i.source > s.name AND i.due_at <= now()
          ORDER BY i.source LIMIT 1), n + 1
  FROM source s WHERE s.name IS NOT NULL AND n < $3),
picked AS (
  SELECT i.job_id, i.position
  FROM (SELECT name FROM source WHERE name IS NOT NULL {size}) s,
  LATERAL (SELECT job_id, position FROM webhook.job_items
           WHERE {due} AND lane = $1 AND source = s.name AND due_at <= now()
           ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED) i),
released AS (
  UPDATE webhook.job_items i SET state = 'released', release = $5, lane = $6, progress_at = now()
  FROM picked p WHERE i.job_id = p.job_id AND i.position = p.position
  RETURNING i.*)
SELECT r.job_id::text, r.position, r.source, r.domain, r.document_id::text, r.version, r.url,
       r.action, r.crawl_id, coalesce(r.target, t.target) AS target, s.last_source, s.sources,
       (SELECT traceparent FROM webhook.jobs j WHERE j.job_id = r.job_id) AS traceparent
FROM (SELECT max(name) AS last_source, count(name) AS sources FROM source) s
LEFT JOIN released r ON true
LEFT JOIN webhook.targets t ON t.collection = r.collection AND t.live
ORDER BY target, r.action, r.domain, r.source, r.job_id, r.position
"""
_QUEUED = "state = 'queued'"
# Has its own index: a million other queued items cost nothing.
_DELETES = f"{_QUEUED} AND action = 'delete'"
# These few items have their own index, too.
_TARGETED = f"{_QUEUED} AND target IS NOT NULL"
_COUNTED = f"""AND (SELECT count(*) FROM (
  SELECT 1 FROM webhook.job_items
  WHERE {_QUEUED} AND lane = $1 AND source = name AND due_at <= now()
  LIMIT {SMALL_SOURCE}
) due)"""


class Which(enum.Enum):
    """The items to pick: a condition on them, and one on their source."""

    ANY = (_QUEUED, "")
    DELETES = (_DELETES, "")
    TARGETED = (_TARGETED, "")
    TARGETED_DELETES = (f"{_TARGETED} AND action = 'delete'", "")
    OF_SMALL_SOURCES = (_QUEUED, f"{_COUNTED} < {SMALL_SOURCE} LIMIT {_SMALL_SOURCES}")
    OF_LARGE_SOURCES = (_QUEUED, f"{_COUNTED} = {SMALL_SOURCE}")

    @property
    def statement(self) -> str:
        """The pick's SQL."""
        due, size = self.value
        return _PICK.format(due=due, size=size)


# Released items that the streams never had, or lost: the marker in Redis is older than their
# release. In key order, as all statements lock items; items that a stage has locked are skipped.
_REQUEUE = """
UPDATE webhook.job_items i SET state = 'queued', due_at = now()
FROM (SELECT job_id, position FROM webhook.job_items WHERE state = 'released' AND {condition}
      ORDER BY job_id, position FOR UPDATE SKIP LOCKED) again
WHERE i.job_id = again.job_id AND i.position = again.position
RETURNING i.job_id::text, i.position, i.url, i.stage
"""
_REQUEUE_LOST = _REQUEUE.format(condition="release > $1")
_REQUEUE_REFUSED = _REQUEUE.format(condition="release = $1")
_REQUEUE_IDLE = _REQUEUE.format(
    condition="progress_at < now() - make_interval(secs => ($1::jsonb ->> lane)::float8)"
)

_IS_ANY_IDLE = """
SELECT EXISTS (SELECT 1 FROM webhook.job_items
               WHERE state = 'released' AND progress_at < now() - make_interval(secs => $1))
"""

# Above the marker, too: a sequence restored from an older backup must not repeat a number.
_NEXT_RELEASE = (
    "SELECT setval('webhook.release_number', greatest(nextval('webhook.release_number'), $1 + 1))"
)


# Counted only up to the threshold of the automatic batch size: counting a million rows would cost
# too much.
_DEPTH = f"""
SELECT count(*) FROM (
  SELECT 1 FROM webhook.job_items WHERE state = 'queued' AND lane = $1 LIMIT {COUNTED_DEPTH}) queued
"""


# The time of ended items, with their batch message, in their slowest stage.
_STAGE_SECONDS = """
SELECT k.ordinal, (SELECT max(extract(epoch FROM (s.value ->> 'finished_at')::timestamptz
                                               - (s.value ->> 'started_at')::timestamptz))::float8
                   FROM jsonb_each(i.stages) s) AS seconds
FROM webhook.job_items i
JOIN unnest($1::uuid[], $2::int[], $3::bigint[])
  WITH ORDINALITY AS k(job_id, position, release, ordinal)
  ON i.job_id = k.job_id AND i.position = k.position AND i.release = k.release
WHERE i.finished_at IS NOT NULL
"""


class Released(msgspec.Struct, frozen=True, kw_only=True):
    """A released item."""

    job_id: str
    position: int
    source: str
    domain: str
    document_id: str
    version: int
    url: str
    action: Action
    crawl_id: str | None
    target: str
    traceparent: str | None = None  # of the request that brought the job


class Picked(msgspec.Struct, frozen=True, kw_only=True):
    """The released items, and the cursor of the next pick, which is empty after the last source."""

    items: list[Released]
    cursor: str


class Pick(msgspec.Struct, frozen=True, kw_only=True):
    """A pick: at most `sources` sources after `cursor`, and at most `items` of each."""

    lane: Lane
    cursor: str
    sources: int
    items: int
    which: Which = Which.ANY
    travels_in: Lane  # the lane of the streams, which becomes the lane of the items


class Releases:
    """The statements of the dispatcher. Raises DependencyError when Postgres is unavailable."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def next_number(self, marker: int) -> int:
        """A release number above all earlier ones."""
        return int(await self._pool.fetchval(_NEXT_RELEASE, marker))

    async def release(self, pick: Pick, number: int) -> Picked:
        """Commit the next due items as released under `number`, sorted by target, action and
        domain.
        """
        rows = await self._pool.fetch(
            pick.which.statement,
            pick.lane,
            pick.cursor,
            pick.sources,
            pick.items,
            number,
            pick.travels_in,
        )
        items = [msgspec.convert(dict(row), Released) for row in rows if row["job_id"] is not None]
        # Fewer sources than requested: the scan reached the end, and the next one starts at the
        # front.
        is_end = rows[0]["sources"] < pick.sources
        return Picked(items=items, cursor="" if is_end else rows[0]["last_source"])

    async def depth(self, lane: Lane) -> int:
        """The number of queued items of a lane, counted up to COUNTED_DEPTH."""
        return int(await self._pool.fetchval(_DEPTH, lane))

    async def stage_seconds(self, refs: Sequence[DocumentRef]) -> dict[int, float]:
        """The seconds of ended items in their slowest stage, by index in `refs`."""
        rows = await self._pool.fetch(
            _STAGE_SECONDS,
            [r.job_id for r in refs],
            [r.position for r in refs],
            [r.release for r in refs],
        )
        return {row["ordinal"] - 1: row["seconds"] for row in rows if row["seconds"] is not None}

    async def requeue_lost(self, marker: int) -> int:
        """Queue the items that were released after `marker`; returns how many."""
        return len(await self._pool.fetch(_REQUEUE_LOST, marker))

    async def requeue(self, number: int) -> None:
        """Queue the items that were released under `number`, whose publication was refused."""
        await self._pool.fetch(_REQUEUE_REFUSED, number)

    async def is_any_idle(self, seconds: float) -> bool:
        """Whether any released item made no progress for `seconds`."""
        return bool(await self._pool.fetchval(_IS_ANY_IDLE, seconds))

    async def requeue_idle(self, seconds: Mapping[Lane, float]) -> Sequence[asyncpg.Record]:
        """Queue the items without progress for the seconds of their lane; returns job_id, position,
        url, stage.
        """
        return await self._pool.fetch(_REQUEUE_IDLE, seconds)
