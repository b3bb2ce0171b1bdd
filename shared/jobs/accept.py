"""Accepting work: job, items and texts in one transaction. When `accept` returns, the work is durable."""

import datetime
from collections.abc import Sequence

import asyncpg
import msgspec

from shared.clients import Connection
from shared.errors import MillstreamError
from shared.jobs.model import ItemState, JobStatus, NewItem, NewJob

_CLAIM_KEY = """
INSERT INTO webhook.idempotency_keys AS k (scope, key, request_hash, job_id, expires_at)
VALUES ($1, $2, $3, $4, now() + $5)
ON CONFLICT (scope, key) DO UPDATE SET  -- an expired key is free again
  job_id       = CASE WHEN k.expires_at < now() THEN excluded.job_id ELSE k.job_id END,
  request_hash = CASE WHEN k.expires_at < now() THEN excluded.request_hash ELSE k.request_hash END,
  expires_at   = CASE WHEN k.expires_at < now() THEN excluded.expires_at ELSE k.expires_at END
RETURNING job_id::text, request_hash
"""

_INSERT_JOB = """
INSERT INTO webhook.jobs (job_id, kind, status, lane, collection, crawl_id, callback_url, request_id, timeout,
                          total, failed, finished_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, CASE WHEN $10::int = $11::int THEN now() END)
"""

_INSERT_ITEMS = """
INSERT INTO webhook.job_items
  (job_id, position, state, action, lane, collection, source, domain, document_id, version, url, crawl_id, code, error,
   finished_at)
SELECT $1, r.position, r.state, r.action, r.lane, r.collection, r.source, r.domain, r.document_id, r.version, r.url, $2,
       r.code, r.error, CASE WHEN r.state = 'failed' THEN now() END
FROM unnest($3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::uuid[],
            $11::bigint[], $12::text[], $13::text[], $14::text[])
  AS r(position, state, action, lane, collection, source, domain, document_id, version, url, code, error)
"""

_INSERT_PAYLOADS = """
INSERT INTO webhook.payloads (version, document_id, body) SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::bytea[])
"""

# Ascending in item order: the later of two items about one document wins.
_NEXT_VERSIONS = "SELECT nextval('webhook.document_version') FROM generate_series(1, $1)"


class IdempotencyConflictError(MillstreamError):
    """The same key came with another body."""


class DeliveryKey(msgspec.Struct, frozen=True, kw_only=True):
    """What makes two requests one delivery. An implicit key (from the payload) never conflicts."""

    scope: str
    key: str
    request_hash: bytes
    window: float  # seconds
    is_explicit: bool = False


class _Duplicate(Exception):  # noqa: N818 - rolls the transaction back, never leaves this module
    def __init__(self, job_id: str) -> None:
        self.job_id = job_id


async def accept(pool: asyncpg.Pool, job: NewJob, items: Sequence[NewItem], key: DeliveryKey | None) -> str:
    """Make the job durable and return its id; for a repeated delivery the id of the first one.

    Raises IdempotencyConflictError when an explicit key comes with another body.
    """
    try:
        async with pool.acquire() as connection, connection.transaction():
            if key is not None:
                await _claim_key(connection, job, key)
            await _insert(connection, job, items)
    except _Duplicate as duplicate:
        return duplicate.job_id
    return job.job_id


async def _claim_key(connection: Connection, job: NewJob, key: DeliveryKey) -> None:
    window = datetime.timedelta(seconds=key.window)
    row = await connection.fetchrow(_CLAIM_KEY, key.scope, key.key, key.request_hash, job.job_id, window)
    assert row is not None
    owner, request_hash = row
    if owner == job.job_id:
        return
    if key.is_explicit and request_hash != key.request_hash:
        raise IdempotencyConflictError(f"Idempotency-Key {key.key!r} was used with another body")
    raise _Duplicate(owner)


async def _insert(connection: Connection, job: NewJob, items: Sequence[NewItem]) -> None:
    failed = sum(item.error is not None for item in items)
    status = JobStatus.FAILED if failed == len(items) else JobStatus.QUEUED
    await connection.execute(
        _INSERT_JOB, job.job_id, job.kind, status, job.lane, job.collection, job.crawl_id, job.callback_url,
        job.request_id, job.timeout, len(items), failed,
    )  # fmt: skip
    good = [item for item in items if item.error is None]
    versions = iter([row[0] for row in await connection.fetch(_NEXT_VERSIONS, len(good))])
    version_of = [None if item.error is not None else next(versions) for item in items]
    await connection.execute(
        _INSERT_ITEMS, job.job_id, job.crawl_id,
        list(range(len(items))),
        [ItemState.QUEUED if item.error is None else ItemState.FAILED for item in items],
        [item.action for item in items],
        [item.lane for item in items],
        [item.collection for item in items],
        [item.source for item in items],
        [item.domain for item in items],
        [item.document_id for item in items],
        version_of,
        [item.url for item in items],
        [item.code for item in items],
        [item.error for item in items],
    )  # fmt: skip
    texts = [(v, i.document_id, i.body) for v, i in zip(version_of, items, strict=True) if i.body and v is not None]
    if texts:
        await connection.execute(_INSERT_PAYLOADS, *map(list, zip(*texts, strict=True)))
