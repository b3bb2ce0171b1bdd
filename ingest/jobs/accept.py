"""Accepting work: job, items and texts in one transaction.

Once `accept` returns, the work is durable.
"""

import datetime
from collections.abc import Callable, Iterable, Iterator, Sequence

import asyncpg
import msgspec

from shared.jobs.model import JobStatus, NewItem, NewJob
from shared.pipeline.failpoints import failpoint
from shared.pipeline.outcomes import ItemState
from shared.service.clients import Connection
from shared.service.errors import MillstreamError

# One statement is one round trip and one commit: with a statement per table, and a reset of the
# connection after them, Postgres took 2.8 times as long for a webhook (16 at once on two shared
# cores). A job without a key, or with an expired one, is new. Otherwise nothing is written and the
# owner of the key is returned.
_ACCEPT = """
WITH claimed AS (
  INSERT INTO webhook.idempotency_keys AS k (scope, key, request_hash, job_id, expires_at)
  SELECT $1, $2, $3, $5, coalesce(now() + $4::interval, 'infinity') WHERE $2::text IS NOT NULL
  ON CONFLICT (scope, key) DO UPDATE SET
    job_id       = CASE WHEN k.expires_at < now() THEN excluded.job_id ELSE k.job_id END,
    request_hash = CASE WHEN k.expires_at < now() THEN excluded.request_hash
                        ELSE k.request_hash END,
    expires_at   = CASE WHEN k.expires_at < now() THEN excluded.expires_at ELSE k.expires_at END
  RETURNING job_id, request_hash),
owner AS MATERIALIZED (
  SELECT job_id, request_hash FROM claimed UNION ALL SELECT $5, NULL WHERE $2 IS NULL),
job AS (
  INSERT INTO webhook.jobs
    (job_id, kind, status, lane, collection, crawl_id, callback_url, request_id, timeout,
     total, failed, finished_at, callback_due_at, traceparent)
  SELECT $5, $6, $7, $8, $9, $10, $11, $12, $13,
         $14, $15, CASE WHEN $14::int = $15::int THEN now() END,
         CASE WHEN $14::int = $15::int AND $11::text IS NOT NULL THEN now() END, $27
  FROM owner WHERE owner.job_id = $5),
numbered AS MATERIALIZED (  -- in item order: the later of two items of one document wins
  SELECT r.*, CASE WHEN r.state <> 'failed' THEN nextval('webhook.document_version') END AS version
  FROM owner,
       unnest($16::text[], $17::text[], $18::text[], $19::text[], $20::text[], $21::text[],
              $22::uuid[], $23::text[], $24::text[], $25::text[], $26::bytea[]) WITH ORDINALITY
       AS r(state, action, lane, collection, source, domain,
            document_id, url, code, error, body, ordinal)
  WHERE owner.job_id = $5),
items AS (
  INSERT INTO webhook.job_items
    (job_id, position, state, action, lane, collection, source, domain, document_id, version, url,
     crawl_id, code, error, finished_at)
  SELECT $5, ordinal - 1, state, action, lane, collection, source, domain, document_id, version,
         url, $10, code, error, CASE WHEN state = 'failed' THEN now() END
  FROM numbered),
texts AS (
  INSERT INTO webhook.payloads (version, document_id, body)
  SELECT version, document_id, body FROM numbered WHERE body IS NOT NULL AND version IS NOT NULL)
SELECT job_id::text, request_hash,
       (SELECT array_agg(version ORDER BY ordinal) FROM numbered) AS versions
FROM owner
"""

_INSERT_PAYLOADS = """
INSERT INTO webhook.payloads (version, document_id, body)
SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::bytea[])
"""

_SLICE_BYTES = 4 * 1024 * 1024  # of texts in one statement

_Text = tuple[int, str | None, bytes]  # version, document id, body
# Called between the statements of a large load: Postgres is available, the load only takes long.
Progress = Callable[[], None]


class IdempotencyConflictError(MillstreamError):
    """The same key was sent with another body."""


class DeliveryKey(msgspec.Struct, frozen=True, kw_only=True):
    """Identifies repeats of a delivery. An implicit key, made from the payload, never conflicts."""

    scope: str
    key: str
    request_hash: bytes
    window: float | None  # seconds; None: for ever
    is_explicit: bool = False


async def accept(
    pool: asyncpg.Pool,
    job: NewJob,
    items: Sequence[NewItem],
    key: DeliveryKey | None,
    progress: Progress = lambda: None,
) -> str:
    """Make the job durable; returns its id, or for a repeated delivery the id of the first job.

    Raises IdempotencyConflictError if an explicit key was used with another body.
    """
    async with pool.acquire() as connection:
        if sum(len(item.body or b"") for item in items) <= _SLICE_BYTES:
            owner, _ = await _write(connection, job, items, key, with_texts=True)
        else:
            async with connection.transaction():
                owner, versions = await _write(connection, job, items, key, with_texts=False)
                await _write_texts(connection, zip(versions, items, strict=False), progress)
    failpoint("ingest", "accepted")
    return owner


async def _write(
    connection: Connection,
    job: NewJob,
    items: Sequence[NewItem],
    key: DeliveryKey | None,
    *,
    with_texts: bool,
) -> tuple[str, Sequence[int | None]]:
    """Write the job, and its texts with `with_texts`.

    Returns the job that owns the key, and if that is this job the versions of its items.
    """
    failpoint("ingest", "accepting")
    failed = sum(item.error is not None for item in items)
    status = JobStatus.FAILED if failed == len(items) else JobStatus.QUEUED
    row = await connection.fetchrow(
        _ACCEPT, *_claim(key), job.job_id, job.kind, status, job.lane, job.collection, job.crawl_id,
        job.callback_url, job.request_id, job.timeout, len(items), failed,
        [ItemState.QUEUED if item.error is None else ItemState.FAILED for item in items],
        [item.action for item in items],
        [item.lane for item in items],
        [item.collection for item in items],
        [item.source for item in items],
        [item.domain for item in items],
        [item.document_id for item in items],
        [item.url for item in items],
        [item.code for item in items],
        [item.error for item in items],
        [item.body if with_texts else None for item in items],
        job.traceparent,
    )  # fmt: skip
    assert row is not None
    owner, request_hash, versions = row
    if (
        owner != job.job_id
        and key is not None
        and key.is_explicit
        and request_hash != key.request_hash
    ):
        raise IdempotencyConflictError(
            f"the Idempotency-Key {key.key!r} was used with another body or query: send a new key"
        )
    return owner, versions or ()


def _claim(
    key: DeliveryKey | None,
) -> tuple[str | None, str | None, bytes | None, datetime.timedelta | None]:
    if key is None:
        return None, None, None, None
    window = None if key.window is None else datetime.timedelta(seconds=key.window)
    return key.scope, key.key, key.request_hash, window


async def _write_texts(
    connection: Connection, numbered: Iterable[tuple[int | None, NewItem]], progress: Progress
) -> None:
    texts = [
        (version, item.document_id, item.body)
        for version, item in numbered
        if version and item.body
    ]
    for number, some in enumerate(_slices(texts)):
        if number:
            progress()
        await connection.execute(_INSERT_PAYLOADS, *map(list, zip(*some, strict=True)))


def _slices(texts: Sequence[_Text]) -> Iterator[list[_Text]]:
    """The texts in order, in lists of some megabytes: one statement each, which ends soon."""
    some: list[_Text] = []
    size = 0
    for text in texts:
        some.append(text)
        size += len(text[2])
        if size >= _SLICE_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some
