"""The rows of operation_metrics: collected in memory, written in bulk.

A failure to write them never fails a document.
"""

import asyncio
import datetime
from collections import deque
from typing import Any

import asyncpg
import msgspec
import structlog

from shared.service.clients import is_postgres_unavailable

log = structlog.get_logger()

FLUSH_SECONDS = 1.0
_MAX_BUFFERED = 50_000  # rows, about 20 MB; beyond that the oldest are dropped
_BATCH = 5_000

_COLUMNS = (
    "timestamp",
    "operation_type",
    "operation_name",
    "duration_ms",
    "success",
    "error_message",
    "request_id",
    "job_id",
    "crawl_id",
    "document_url",
    "metadata",
)


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One row: an operation, its duration, and whether it succeeded."""

    # batch_processing, document_indexing, chunking, embedding, qdrant, bm25 or database
    operation_type: str
    operation_name: str
    duration_ms: float
    success: bool = True
    error_message: str | None = None
    request_id: str | None = None
    job_id: str | None = None
    crawl_id: str | None = None
    document_url: str | None = None
    metadata: dict[str, Any] = {}


class OperationLog:
    """Collects operations. `run` writes them until cancelled, `flush` writes the rest."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._rows: deque[tuple[Any, ...]] = deque(maxlen=_MAX_BUFFERED)

    def add(self, operation: Operation) -> None:
        """Collect a row; never blocks and never fails."""
        fields = msgspec.structs.astuple(operation)
        self._rows.append((datetime.datetime.now(datetime.UTC), *fields))

    async def run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write all rows. Rows that cannot be written are dropped, with a warning."""
        while self._rows:
            rows = [self._rows.popleft() for _ in range(min(_BATCH, len(self._rows)))]
            try:
                async with self._pool.acquire() as connection:
                    await connection.copy_records_to_table(
                        "operation_metrics", schema_name="webhook", columns=_COLUMNS, records=rows
                    )
            except Exception as error:
                log.warning(
                    "Metrics rows dropped",
                    rows=len(rows),
                    error=str(error),
                    away=is_postgres_unavailable(error),
                )
                # One failure per flush: a frozen server must not delay the end of the process.
                return
