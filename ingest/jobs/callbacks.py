"""The completion webhooks of jobs: claimed by senders, delivered, postponed, or dead-lettered.

All state is in the row of the job. The statement that ends a job makes its callback due
(`callback_due_at`). A job that a retry reopens is due again only when it has ended again, which is
another completion.
"""

import datetime as dt
import uuid
from collections.abc import Mapping

import asyncpg
import msgspec

from ingest.jobs.dead_letters import LetterFilter, LetterStage, conditions
from ingest.jobs.store import JOB_COLUMNS, Job

# The receivers of one host share its places.
_HOST = "coalesce(lower(substring(callback_url FROM '^[^:]+://([^/?#]+)')), '')"

_LOOKED_AT = 1000  # due callbacks that one claim reads, of hosts that have a place

# A claim makes the callback due again later: if the sender crashes, another one claims it then. $1
# number, $2 seconds, $3 places of a host, $4 and $5 hosts with the callbacks in flight.
_CLAIM = f"""
WITH busy AS MATERIALIZED (
  SELECT * FROM unnest($4::text[], $5::int[]) AS b(host, in_flight)),
oldest AS (
  SELECT job_id, callback_due_at, {_HOST} AS host FROM webhook.jobs
  WHERE callback_due_at <= now() AND finished_at IS NOT NULL
    AND NOT EXISTS (SELECT FROM busy b WHERE b.host = {_HOST} AND b.in_flight >= $3)
  ORDER BY callback_due_at LIMIT {_LOOKED_AT}),
placed AS (
  SELECT job_id, callback_due_at, coalesce(in_flight, 0)
         + row_number() OVER (PARTITION BY host ORDER BY callback_due_at) AS place
  FROM oldest LEFT JOIN busy USING (host)),
due AS MATERIALIZED (
  SELECT job_id AS due_id FROM webhook.jobs
  WHERE job_id IN (SELECT job_id FROM placed WHERE place <= $3 ORDER BY callback_due_at LIMIT $1)
    AND callback_due_at <= now() AND finished_at IS NOT NULL
  ORDER BY job_id FOR UPDATE SKIP LOCKED)
UPDATE webhook.jobs j
SET callback_due_at = now() + make_interval(secs => $2), callback_attempts = callback_attempts + 1
FROM due WHERE j.job_id = due_id
RETURNING {JOB_COLUMNS}, callback_url, callback_attempts, traceparent, {_HOST} AS host
"""

# A sender settles only the latest claim, of the completion that it was made for.
_CURRENT = "job_id = $1 AND finished_at = $2 AND callback_attempts = $3"

_DELIVERED = f"UPDATE webhook.jobs SET callback_due_at = NULL WHERE {_CURRENT}"

_POSTPONE = (
    f"UPDATE webhook.jobs SET callback_due_at = now() + make_interval(secs => $4) WHERE {_CURRENT}"
)

_GIVE_UP = f"""
WITH given_up AS (
  UPDATE webhook.jobs SET callback_due_at = NULL WHERE {_CURRENT}
  RETURNING job_id, callback_url, callback_attempts)
INSERT INTO webhook.dead_letters (job_id, url, stage, code, error, attempts)
SELECT job_id, callback_url, '{LetterStage.CALLBACK}', $4::text, $5::text, callback_attempts
FROM given_up
"""

_COUNT = (
    "SELECT count(*) FROM webhook.dead_letters l JOIN webhook.jobs j USING (job_id) WHERE {where}"
)

# The callback of a reopened job (this replay may have reopened it) becomes due when the job ends;
# its dead letter counts as replayed.
_REPLAY = """
WITH chosen AS MATERIALIZED (SELECT l.id, l.job_id FROM webhook.dead_letters l WHERE {where}),
locked AS MATERIALIZED (
  SELECT job_id FROM webhook.jobs WHERE job_id IN (SELECT job_id FROM chosen)
  ORDER BY job_id FOR UPDATE),
again AS (
  UPDATE webhook.jobs j SET callback_due_at = now(), callback_attempts = 0
  FROM locked l WHERE j.job_id = l.job_id RETURNING j.job_id)
UPDATE webhook.dead_letters d SET replayed_at = now()
FROM chosen l JOIN again USING (job_id) WHERE d.id = l.id AND d.replayed_at IS NULL
"""


class Callback(msgspec.Struct, frozen=True, kw_only=True):
    """A claimed callback: a job that has ended, and the URL of its receiver."""

    job: Job
    url: str
    host: str  # of the URL, with its port
    attempts: int  # including this one
    traceparent: str | None

    @property
    def delivery_id(self) -> str:
        """The same for every attempt to deliver one completion; another one if a retry reopens the
        job.
        """
        return str(uuid.uuid5(uuid.UUID(self.job.job_id), str(self._finished_at)))

    @property
    def _finished_at(self) -> dt.datetime:
        assert self.job.finished_at is not None
        return self.job.finished_at

    @property
    def claim(self) -> tuple[str, dt.datetime, int]:
        """The conditions under which the claim can be settled."""
        return self.job.job_id, self._finished_at, self.attempts


class Callbacks:
    """The callbacks in Postgres. Raises DependencyError when it is unavailable."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def claim(
        self, limit: int, lease: float, *, per_host: int, in_flight: Mapping[str, int]
    ) -> list[Callback]:
        """Claim at most `limit` callbacks that are due, and of each host at most `per_host`.

        `in_flight` counts those that the sender has already, by host. No other sender gets a
        claimed callback for `lease` seconds.
        """
        rows = await self._pool.fetch(
            _CLAIM, limit, lease, per_host, list(in_flight), list(in_flight.values())
        )
        return [_callback(row) for row in rows]

    async def delivered(self, callback: Callback) -> None:
        """Record that the receiver accepted it."""
        await self._pool.execute(_DELIVERED, *callback.claim)

    async def postpone(self, callback: Callback, delay: float) -> None:
        """Make it due again after `delay` seconds."""
        await self._pool.execute(_POSTPONE, *callback.claim, delay)

    async def give_up(self, callback: Callback, code: str, error: str) -> None:
        """Turn it into a dead letter."""
        await self._pool.execute(_GIVE_UP, *callback.claim, code, error)


async def replay_callbacks(
    pool: asyncpg.Pool, wanted: LetterFilter, last: int, *, dry_run: bool = False
) -> int:
    """Make the callbacks of these dead letters, up to the id `last`, due again; a dry run only
    counts them.

    Returns their number. Raises DependencyError when Postgres is unavailable.
    """
    where, arguments = conditions(wanted)
    where += f" AND l.stage = '{LetterStage.CALLBACK}' AND l.id <= ${len(arguments) + 1}"
    if dry_run:
        return int(await pool.fetchval(_COUNT.format(where=where), *arguments, last))
    return int((await pool.execute(_REPLAY.format(where=where), *arguments, last)).split()[-1])


def _callback(row: asyncpg.Record) -> Callback:
    fields = dict(row)
    return Callback(
        url=fields.pop("callback_url"),
        host=fields.pop("host"),
        attempts=fields.pop("callback_attempts"),
        traceparent=fields.pop("traceparent"),
        job=msgspec.convert(fields, Job),
    )
