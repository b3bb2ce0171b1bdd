"""The registry of documents: the version of each document that is decided, and the one that is
visible.

`fence` is the highest version decided for (target, document). `live_version` is the version of the
visible points, null for a deleted document. The steps of the fence that use Qdrant are in
indexer/fence.py.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import asyncpg
import msgspec

_UNCHANGED = """
UPDATE webhook.documents
SET fence = $3, seen_crawl_id = coalesce($6, seen_crawl_id), seen_at = now()
WHERE target = $1 AND document_id = $2 AND fence < $3 AND live_version IS NOT NULL
  AND content_hash = $4 AND fingerprint = $5
  AND NOT EXISTS (SELECT FROM webhook.recoveries r WHERE r.target = $1)
RETURNING chunks
"""

_STATES = """
SELECT document_id::text, fence, live_version FROM webhook.documents
WHERE target = $1 AND document_id = ANY ($2::uuid[])
"""

# At least one row, with the time. now() is before the snapshot of the statement: no change is
# missed.
_CHANGED = """
SELECT now() AS read_at, d.document_id::text, d.live_version
FROM (SELECT) AS once LEFT JOIN webhook.documents d ON d.target = $1 AND d.changed_at >= $2
"""

# Sorted, so that two indexers cannot deadlock. An equal fence means that this commit is repeated,
# or that a copy of the item found the document unchanged meanwhile: then these points are not
# needed.
_COMMIT = """
INSERT INTO webhook.documents AS d
  (target, document_id, fence, live_version, url, content_hash, fingerprint, chunks, domain,
   crawl_id, seen_crawl_id)
SELECT $1, r.document_id, r.version, CASE WHEN r.live THEN r.version END, r.url, r.content_hash,
       r.fingerprint, r.chunks, r.domain, r.crawl_id, r.crawl_id
FROM unnest($2::uuid[], $3::bigint[], $4::bool[], $5::text[], $6::bytea[], $7::bytea[], $8::int[],
            $9::text[], $10::text[])
  AS r(document_id, version, live, url, content_hash, fingerprint, chunks, domain, crawl_id)
ORDER BY r.document_id
ON CONFLICT (target, document_id) DO UPDATE
SET fence = excluded.fence, live_version = excluded.live_version, url = excluded.url,
    content_hash = excluded.content_hash, fingerprint = excluded.fingerprint,
    chunks = excluded.chunks, domain = excluded.domain, crawl_id = excluded.crawl_id,
    seen_crawl_id = coalesce(excluded.crawl_id, d.seen_crawl_id), changed_at = now(),
    seen_at = now()
WHERE d.fence < excluded.fence
   OR (d.fence = excluded.fence AND d.live_version IS NOT DISTINCT FROM excluded.live_version)
RETURNING document_id::text
"""


class Decided(NamedTuple):
    """The fence of a document. A document that was never decided has none."""

    fence: int
    live_version: int | None

    def is_past(self, version: int) -> bool:
        """Whether `version` must not become visible: a later one was decided, or none is needed."""
        return self.fence > version or (self.fence == version and self.live_version != version)

    def is_against(self, version: int) -> bool:
        """Whether the points of `version` are hidden for good.

        A version once passed is never shown.
        """
        return self.is_past(version) and self.live_version != version


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """The row that the commit of one document writes; a delete has no content."""

    document_id: str
    version: int
    is_live: bool
    url: str
    content_hash: bytes | None = None
    fingerprint: bytes | None = None
    chunks: int = 0
    domain: str = ""
    crawl_id: str | None = None


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A document that was sent again and may be unchanged."""

    document_id: str
    version: int
    content_hash: bytes
    fingerprint: bytes
    crawl_id: str | None = None


class Registry:
    """The documents of all targets. Raises DependencyError when Postgres is unavailable."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def mark_unchanged(self, target: str, seen: Seen) -> int | None:
        """Raise the fence of a document whose live content is the same.

        Returns the number of its chunks, None if the content differs.
        """
        chunks: int | None = await self._pool.fetchval(
            _UNCHANGED,
            target,
            seen.document_id,
            seen.version,
            seen.content_hash,
            seen.fingerprint,
            seen.crawl_id,
        )
        return chunks

    async def decided(self, target: str, document_ids: Sequence[str]) -> dict[str, Decided]:
        """Fence and live version of the documents that have one."""
        rows = await self._pool.fetch(_STATES, target, document_ids)
        return {row["document_id"]: Decided(row["fence"], row["live_version"]) for row in rows}

    async def live_versions(
        self, target: str, document_ids: Sequence[str]
    ) -> Mapping[str, int | None]:
        """Live version by document id: None for a deleted document, no key for an unknown one."""
        decided = await self.decided(target, document_ids)
        return {document_id: state.live_version for document_id, state in decided.items()}

    async def changed_since(
        self, target: str, since: dt.datetime
    ) -> tuple[dt.datetime, Mapping[str, int | None]]:
        """The time of the database, and the live version of each document decided since `since`.

        A decision has the time of its statement's start but is seen after its commit: callers must
        overlap.
        """
        rows = await self._pool.fetch(_CHANGED, target, since)
        live = {
            row["document_id"]: row["live_version"]
            for row in rows
            if row["document_id"] is not None
        }
        return rows[0]["read_at"], live

    async def commit(self, target: str, registrations: Sequence[Registration]) -> set[str]:
        """Decide these versions, unless a later one is decided; returns the documents that were."""
        rows = await self._pool.fetch(
            _COMMIT, target,
            [r.document_id for r in registrations],
            [r.version for r in registrations],
            [r.is_live for r in registrations],
            [r.url for r in registrations],
            [r.content_hash for r in registrations],
            [r.fingerprint for r in registrations],
            [r.chunks for r in registrations],
            [r.domain for r in registrations],
            [r.crawl_id for r in registrations],
        )  # fmt: skip
        return {row["document_id"] for row in rows}
