"""Reports of operation_metrics: totals by type of operation, and the latest rows."""

import datetime as dt
from typing import Annotated, Any

import asyncpg
import msgspec
from msgspec import Meta

from shared.service.parameters import Text

_WHERE = """
timestamp > now() - make_interval(secs => $1) AND ($2::text IS NULL OR operation_type = $2)
AND ($3::text IS NULL OR document_url = $3) AND ($4::boolean IS NULL OR success = $4)
"""

_TOTALS = f"""
SELECT operation_type, count(*) AS total, count(*) FILTER (WHERE success) AS success_count,
       count(*) FILTER (WHERE NOT success) AS failure_count,
       avg(success::int)::float8 AS success_rate, avg(duration_ms) AS avg_duration_ms,
       min(duration_ms) AS min_duration_ms, max(duration_ms) AS max_duration_ms,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95_duration_ms
FROM webhook.operation_metrics WHERE {_WHERE} GROUP BY operation_type ORDER BY operation_type
"""

_LATEST = f"""
SELECT timestamp, operation_type, operation_name, duration_ms, success, error_message, request_id,
       job_id::text, crawl_id, document_url, metadata
FROM webhook.operation_metrics WHERE {_WHERE} ORDER BY timestamp DESC LIMIT $5
"""


class OperationFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A selection of rows, and how many of the latest to return; all conditions that are set must
    hold.
    """

    hours: Annotated[float, Meta(gt=0, le=24 * 366)] = 24.0
    operation_type: Text | None = None
    document_url: Text | None = None
    success: bool | None = None
    limit: Annotated[int, Meta(ge=0, le=1000)] = 100


class OperationTotals(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one type of operation; `success_rate` is from 0 to 1."""

    total: int
    success_count: int
    failure_count: int
    success_rate: float
    avg_duration_ms: float
    min_duration_ms: float
    max_duration_ms: float
    p95_duration_ms: float


class OperationRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row."""

    timestamp: dt.datetime
    operation_type: str
    operation_name: str
    duration_ms: float
    success: bool
    error_message: str | None
    request_id: str | None
    job_id: str | None
    crawl_id: str | None
    document_url: str | None
    metadata: dict[str, Any]


class OperationReport(msgspec.Struct, frozen=True, kw_only=True):
    operations_by_type: dict[str, OperationTotals]
    operations: list[OperationRow]  # the latest, newest first


class OperationReports:
    """Reads operation_metrics. Raises DependencyError when Postgres is unavailable."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def report(self, wanted: OperationFilter) -> OperationReport:
        """Totals over all selected rows, and the latest of them."""
        chosen = (wanted.hours * 3600, wanted.operation_type, wanted.document_url, wanted.success)
        totals = [dict(row) for row in await self._pool.fetch(_TOTALS, *chosen)]
        latest = await self._pool.fetch(_LATEST, *chosen, wanted.limit) if wanted.limit else []
        return OperationReport(
            operations_by_type={
                row.pop("operation_type"): msgspec.convert(row, OperationTotals) for row in totals
            },
            operations=[msgspec.convert(dict(row), OperationRow) for row in latest],
        )
