"""Compares the points in Qdrant with the registry: a document that has too few is indexed again.

Points may vanish behind our back: deleted by hand, or by an older snapshot that was restored.
Nothing else would notice: the registry still says that the document is searchable, and a page that
comes again is `unchanged`.
"""

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Protocol

import asyncpg
import msgspec

from indexer.recovery import REQUEUED

SLICE = 500  # documents of one statement and of one request to Qdrant
_REST = 4.0  # times the seconds that a slice took: searches and upserts get the rest of Qdrant

# Deleted documents count, too: a slice of those that are visible could read the whole registry.
# `ORDER BY document_id` alone would sort the texts of the result, of the whole target.
_SLICE = """
SELECT document_id::text, live_version, chunks,
       live_version IS NOT NULL AND content_hash IS NOT NULL AS is_visible
FROM webhook.documents d WHERE target = $1 AND document_id > $2 ORDER BY d.document_id LIMIT $3
"""

# Only those that are still visible in this version. $4 documents, $5 their versions.
_REQUEUE = f"""
WITH wanted AS MATERIALIZED (
  SELECT d.document_id, d.fence, d.live_version, d.url, d.domain, d.crawl_id
  FROM webhook.documents d JOIN unnest($4::uuid[], $5::bigint[]) AS s(document_id, version)
    ON s.document_id = d.document_id AND s.version = d.live_version
  WHERE d.target = $1 AND d.content_hash IS NOT NULL
  ORDER BY d.document_id FOR UPDATE OF d),
{REQUEUED}
SELECT count(*) FROM transfers
"""

_VERSIONS = """
SELECT live_version FROM webhook.documents WHERE target = $1 AND document_id = ANY ($2::uuid[])
"""

_NO_DOCUMENT = str(uuid.UUID(int=0))


class VersionCounts(Protocol):
    """The part of the point store that the verifier needs."""

    async def count_versions(
        self, collection: str, versions: Sequence[int]
    ) -> Mapping[int, int]: ...


class Visible(msgspec.Struct, frozen=True):
    """A document that search should show, with the number of points that it should have."""

    document_id: str
    live_version: int
    chunks: int


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """One pass over a target."""

    documents: int
    short: int  # documents with fewer points than chunks
    requeued: int


class Verifier:
    """Any number may run at once. Raises DependencyError if Qdrant or Postgres is unavailable."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        store: VersionCounts,
        timeout: float,
        *,
        rest: float = _REST,
        rows: int = SLICE,
    ) -> None:
        """`timeout` of a batch message in one stage, in seconds; `rest` in durations of a slice;
        `rows` of a slice.
        """
        self._pool = pool
        self._store = store
        self._timeout = timeout
        self._rest = rest
        self._rows = rows

    async def verify(self, target: str, *, repair: bool) -> Verified:
        """Count the points of each visible document; with `repair`, queue the short ones again."""
        documents, short, requeued, after = 0, 0, 0, _NO_DOCUMENT
        while rows := await self._pool.fetch(_SLICE, target, after, self._rows):
            started = time.monotonic()
            visible = [_visible(row) for row in rows if row["is_visible"]]
            lacking = await self._short(target, visible) if visible else []
            documents, short = documents + len(visible), short + len(lacking)
            after = rows[-1]["document_id"]
            if repair and lacking:
                requeued += await self._requeue(target, lacking)
            await asyncio.sleep(self._rest * (time.monotonic() - started))
        return Verified(documents=documents, short=short, requeued=requeued)

    async def _short(self, target: str, slice_: Sequence[Visible]) -> list[Visible]:
        """Find the documents that lack points.

        A document that changed while its points were counted is not one of them.
        """
        points = await self._store.count_versions(target, [d.live_version for d in slice_])
        lacking = lacking_points(slice_, points)
        if not lacking:
            return []
        rows = await self._pool.fetch(_VERSIONS, target, [d.document_id for d in lacking])
        visible = {row["live_version"] for row in rows}
        return [document for document in lacking if document.live_version in visible]

    async def _requeue(self, target: str, documents: Sequence[Visible]) -> int:
        return int(
            await self._pool.fetchval(
                _REQUEUE, target, str(uuid.uuid4()), self._timeout,
                [document.document_id for document in documents],
                [document.live_version for document in documents],
            )
        )  # fmt: skip


def _visible(row: asyncpg.Record) -> Visible:
    return Visible(
        document_id=row["document_id"], live_version=row["live_version"], chunks=row["chunks"]
    )


def lacking_points(documents: Sequence[Visible], points: Mapping[int, int]) -> list[Visible]:
    """Return the documents with fewer points than chunks; `points` by version.

    A version is of one document only.
    """
    return [d for d in documents if points.get(d.live_version, 0) < d.chunks]
