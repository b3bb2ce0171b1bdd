"""Embeddings that were made before, in Postgres: a text that comes again, in whatever document,
costs TEI nothing.

A reader waits for it only briefly and takes every failure for a miss. Writing happens off the path
of the documents: what does not fit into the queue, or cannot be written, is embedded again another
time.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
import structlog

from shared.service.clients import PostgresPool
from shared.service.metrics import Metrics
from shared.tei.client import Vectors

log = structlog.get_logger()

READ_TIMEOUT_S = 0.1  # for one read; embedding 32 texts takes longer on most servers
READ_KEYS = 1000  # of one read: 1.5 MB of 384 dimensions
MAX_QUEUED = 5000  # rows that wait to be written: 8 MB of 384 dimensions
WRITE_ROWS = 500
_GATHER_S = 0.05  # for more rows to come, so that a statement is worth its commit
_FLUSH_TIMEOUT_S = 2.0
_PAUSE_S = 1.0  # after a failure

_READ = """
SELECT key, vector, last_used < current_date - 7 AS is_stale
FROM webhook.embedding_cache WHERE key = ANY ($1)
"""

# Rows are locked in the order of their keys by all writers, so that none waits for another in a
# circle.
_WRITE = """
INSERT INTO webhook.embedding_cache (key, vector)
SELECT key, vector FROM unnest($1::bytea[], $2::bytea[]) AS n(key, vector) ORDER BY key
ON CONFLICT DO NOTHING
"""

_TOUCH = """
WITH used AS (
  SELECT key FROM webhook.embedding_cache WHERE key = ANY ($1) ORDER BY key FOR UPDATE SKIP LOCKED)
UPDATE webhook.embedding_cache c SET last_used = current_date FROM used WHERE c.key = used.key
"""

_DROP = """
DELETE FROM webhook.embedding_cache WHERE key IN (
  SELECT key FROM webhook.embedding_cache WHERE key = ANY ($1) ORDER BY key FOR UPDATE SKIP LOCKED)
"""


class ModelIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What the vector of a text depends on, apart from the text."""

    model: str
    revision: str | None
    dimension: int
    prompt: str = ""  # name of the prompt that TEI puts before the text


class EmbeddingCache:
    """An async context manager: writes while it is open, and what is left at the end."""

    def __init__(
        self,
        pool: PostgresPool,
        identity: ModelIdentity,
        metrics: Metrics,
        max_queued: int = MAX_QUEUED,
    ) -> None:
        self._pool = pool
        self._max_queued = max_queued
        self._dimension = identity.dimension
        self._begin = hashlib.sha256(msgspec.msgpack.encode(identity))
        self._lookups = metrics.tei.cache_lookups
        self._new: dict[bytes, bytes] = {}
        self._used: set[bytes] = set()
        self._corrupt: set[bytes] = set()
        self._arrived = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._writer = asyncio.create_task(self._run(), name="embedding-cache")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._writer is not None
        self._writer.cancel()
        await asyncio.wait([self._writer])
        with contextlib.suppress(Exception):  # the end does not wait for a frozen Postgres
            async with asyncio.timeout(_FLUSH_TIMEOUT_S):
                while self._is_waiting:
                    await self._write()

    async def get(self, texts: Sequence[str]) -> dict[str, Vectors]:
        """The vectors that are known, `float32[dimension]`, read-only, by text. Never fails."""
        keys = {self.key(text): text for text in texts}
        ordered = sorted(keys)
        found: dict[str, Vectors] = {}
        for start in range(0, len(ordered), READ_KEYS):
            rows = await self._read(ordered[start : start + READ_KEYS])
            found |= {keys[key]: vector for key, vector in rows.items()}
        self._lookups.labels("hit").inc(len(found))
        self._lookups.labels("miss").inc(len(keys) - len(found))
        return found

    def put(self, text: str, vector: Vectors) -> None:
        """Keep the vector of a text, `float32[dimension]`. Never blocks; dropped if too many wait
        already.
        """
        if len(self._new) < self._max_queued:
            self._new[self.key(text)] = vector.astype("<f4", copy=False).tobytes()
            self._arrived.set()

    def key(self, text: str) -> bytes:
        """sha256 of the identity and the exact text."""
        digest = self._begin.copy()
        digest.update(text.encode(errors="surrogatepass"))
        return digest.digest()

    @property
    def _is_waiting(self) -> bool:
        return bool(self._new or self._used or self._corrupt)

    async def _read(self, keys: list[bytes]) -> dict[bytes, Vectors]:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                rows = await self._pool.fetch(_READ, keys)
        except Exception as error:
            log.warning(
                "Embedding cache not read", keys=len(keys), error=str(error) or type(error).__name__
            )
            return {}
        found: dict[bytes, Vectors] = {}
        for key, stored, is_stale in rows:
            vector = self._decode(stored)
            if vector is None:
                self._corrupt.add(key)
            else:
                found[key] = vector
                if is_stale and len(self._used) < self._max_queued:
                    self._used.add(key)
        if self._used or self._corrupt:
            self._arrived.set()
        return found

    def _decode(self, stored: bytes) -> Vectors | None:
        """None for what cannot be an embedding: a damaged row must not be found as a document."""
        if len(stored) != 4 * self._dimension:
            return None
        vector = np.frombuffer(stored, dtype="<f4")
        return vector if np.isfinite(vector).all() and vector.any() else None

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            await asyncio.sleep(_GATHER_S)
            try:
                await self._write()
            except Exception as error:
                log.warning("Embeddings not cached", error=str(error) or type(error).__name__)
                await asyncio.sleep(_PAUSE_S)
            if not self._is_waiting:
                self._arrived.clear()

    async def _write(self) -> None:
        """Write some of what waits; what fails is given up."""
        if self._corrupt:
            corrupt, self._corrupt = self._corrupt, set()
            log.error("Cached embeddings damaged, removed", rows=len(corrupt))
            await self._pool.execute(_DROP, sorted(corrupt))
        if self._used:
            used, self._used = self._used, set()
            await self._pool.execute(_TOUCH, sorted(used))
        rows = {key: self._new.pop(key) for key in list(self._new)[:WRITE_ROWS]}
        if rows:
            await self._pool.execute(_WRITE, list(rows), list(rows.values()))
