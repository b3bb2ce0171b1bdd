"""The route about operations: how many of which type, how long they took, and how many failed."""

from aiohttp import web

from ingest.http.deadline import DEADLINE, LONG
from ingest.http.queries import boolean_query, hours_query, integer_query
from ingest.inspection.operations import OperationFilter, OperationReports
from shared.service.clients import PostgresPool
from shared.service.http import json_response

_DEFAULT_HOURS = 24.0
_MAX_ROWS = 1000


class OperationsApi:
    """Handler of /api/metrics/operations."""

    def __init__(self, pool: PostgresPool) -> None:
        self._reports = OperationReports(pool)

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/api/metrics/operations", self.get_operations)

    async def get_operations(self, request: web.Request) -> web.Response:
        """Totals by type over the last hours, and the latest rows."""
        wanted = OperationFilter(
            seconds=hours_query(request, "hours", default=_DEFAULT_HOURS) * 3600,
            operation_type=request.query.get("operation_type"),
            document_url=request.query.get("document_url"),
            success=boolean_query(request, "success"),
        )
        limit = integer_query(request, "limit", default=100, highest=_MAX_ROWS)
        request[DEADLINE].start(LONG)
        return json_response(await self._reports.report(wanted, limit))
