"""The route of operations: how many of which type, how long they took, and how many failed."""

from aiohttp import web

from ingest.http.deadline import DEADLINE, LONG
from ingest.inspection.operations import OperationFilter, OperationReport, OperationReports
from shared.service.clients import PostgresPool
from shared.service.http import json_response
from shared.service.routes import route


class OperationsApi:
    """Handler of /api/metrics/operations."""

    def __init__(self, pool: PostgresPool) -> None:
        self._reports = OperationReports(pool)

    @route(
        "GET /api/metrics/operations",
        "Durations and failures of operations",
        {200: OperationReport},
    )
    async def get_operations(self, request: web.Request, query: OperationFilter) -> web.Response:
        """Totals by type over the last hours, and the latest rows."""
        request[DEADLINE].start(LONG)
        return json_response(await self._reports.report(query))
