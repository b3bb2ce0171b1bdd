"""Replaying dead letters: their items are queued again, and their callbacks are due again.

The retry of a job is a replay of its dead letters.
"""

import asyncpg
import msgspec

from ingest.jobs.callbacks import replay_callbacks
from ingest.jobs.dead_letters import LetterFilter, LetterStage, conditions
from shared.pipeline.failpoints import failpoint

_BATCH = 1000  # dead letters of one statement, so that none holds locks for long

# Whether a dead letter can be replayed: not without an item that failed, a later version that won,
# or without a text.
_CHECKED = f"""
chosen AS MATERIALIZED (
  SELECT l.id, l.job_id, l.position FROM webhook.dead_letters l
  WHERE {{where}} AND l.stage <> '{LetterStage.CALLBACK}'
    AND l.id > ${{after}} AND l.id <= ${{until}}
  ORDER BY l.id LIMIT {{limit}}),
checked AS MATERIALIZED (
  SELECT l.id, l.job_id, l.position, CASE
    WHEN i.state IS DISTINCT FROM 'failed' THEN 'without_item'
    WHEN EXISTS (
      SELECT 1 FROM webhook.documents d JOIN webhook.targets t USING (target)
      WHERE d.document_id = i.document_id AND t.collection = i.collection AND t.live
        AND d.fence > i.version)
      THEN 'superseded'
    WHEN i.action <> 'delete'
         AND NOT EXISTS (SELECT 1 FROM webhook.payloads p WHERE p.version = i.version)
      THEN 'without_text'
    ELSE 'replayable' END AS outcome
  FROM chosen l LEFT JOIN webhook.job_items i USING (job_id, position))"""

_COUNTS = """
SELECT {replayed} AS replayed, count(*) FILTER (WHERE outcome = 'superseded') AS superseded,
       count(*) FILTER (WHERE outcome = 'without_text') AS without_text,
       count(*) FILTER (WHERE outcome = 'without_item') AS without_item,
       count(*) AS chosen, max(id) AS last
FROM checked"""

_DRY_RUN = f"WITH {_CHECKED}" + _COUNTS.format(
    replayed="count(*) FILTER (WHERE outcome = 'replayable')"
)

# Locks items before jobs, each in key order. An item that a concurrent replay has queued is no
# longer `failed` once this statement has its lock, so it is not counted twice.
_REPLAY = (
    f"WITH {_CHECKED},"
    """
held AS MATERIALIZED (
  SELECT i.job_id, i.position FROM webhook.job_items i JOIN checked g USING (job_id, position)
  WHERE g.outcome = 'replayable' AND i.state = 'failed'
  ORDER BY i.job_id, i.position FOR UPDATE OF i),
again AS (
  UPDATE webhook.job_items i
  SET state = 'queued', due_at = now(), attempts = 0, code = NULL, error = NULL, finished_at = NULL
  FROM held h WHERE i.job_id = h.job_id AND i.position = h.position
  RETURNING i.job_id, i.position),
marked AS (
  UPDATE webhook.dead_letters l SET replayed_at = now() FROM again a
  WHERE l.job_id = a.job_id AND l.position = a.position AND l.replayed_at IS NULL),
counts AS (SELECT job_id, count(*) AS n FROM again GROUP BY job_id),
locked AS MATERIALIZED (
  SELECT j.job_id, j.failed - c.n AS failed FROM webhook.jobs j JOIN counts c USING (job_id)
  ORDER BY j.job_id FOR UPDATE OF j),
reopened AS (
  UPDATE webhook.jobs j SET failed = l.failed, status = 'running', finished_at = NULL
  FROM locked l WHERE j.job_id = l.job_id)"""
    + _COUNTS.format(replayed="(SELECT count(*) FROM again)")
)


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """The number of replayed dead letters, and of those that were not, by reason."""

    replayed: int = 0
    superseded: int = 0  # a later version of the document won
    without_text: int = 0  # the text is not stored any more
    without_item: int = 0  # an unreadable entry, a deleted job, or an item that is not failed


async def replay(pool: asyncpg.Pool, wanted: LetterFilter, *, dry_run: bool = False) -> Replay:
    """Queue the items of these dead letters, due at once and with no attempts, and make their
    callbacks due.

    A dead letter is replayed only once. A dry run only counts. Works in batches: after an error
    (DependencyError when Postgres is unavailable) a part may be replayed; a repeated call replays
    the rest.
    """
    where, arguments = conditions(wanted)
    after, until = len(arguments) + 1, len(arguments) + 2
    statement = (_DRY_RUN if dry_run else _REPLAY).format(
        where=where, after=after, until=until, limit=_BATCH
    )
    # An item that fails again at once becomes a new dead letter, which this call must not replay.
    last = await pool.fetchval("SELECT max(id) FROM webhook.dead_letters")
    total, seen, found = Replay(), 0, _BATCH
    while found == _BATCH:
        row = await pool.fetchrow(statement, *arguments, seen, last)
        assert row is not None
        if not dry_run:
            failpoint("ingest", "replayed")
        found, seen = row["chosen"], row["last"]
        total = Replay(
            **{name: count + row[name] for name, count in msgspec.structs.asdict(total).items()}
        )
    callbacks = await replay_callbacks(pool, wanted, last, dry_run=dry_run)
    return msgspec.structs.replace(total, replayed=total.replayed + callbacks)
