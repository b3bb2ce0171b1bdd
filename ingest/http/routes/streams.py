"""The routes about the streams: how full every stage is, who holds which entry, and what an operator does about it."""

import re
from collections.abc import Mapping

from aiohttp import web

from ingest.http.deadline import DEADLINE, LONG
from ingest.http.queries import duration_query, integer_query, lane_query, unprocessable
from ingest.inspection.operator import NotPendingError, Operator, WantedEntry
from ingest.inspection.streams import ENTRY_ID, StreamInspector
from shared.pipeline.stages import StageName
from shared.runtime.faults.policy import storable
from shared.service.http import ProblemError, json_response

MAX_ENTRIES = 1000
_NO_REASON = "an operator gave it up"


class StreamsApi:
    """Handlers of /api/streams; `operators` has one for each stage."""

    def __init__(self, inspector: StreamInspector, operators: Mapping[StageName, Operator]) -> None:
        self._inspector = inspector
        self._operators = operators

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/api/streams", self.get_streams)
        app.router.add_get("/api/streams/{stage}/pending", self.get_pending)
        app.router.add_post("/api/streams/{stage}/pending/{entry_id}/claim", self.post_claim)
        app.router.add_post("/api/streams/{stage}/pending/{entry_id}/release", self.post_release)
        app.router.add_post("/api/streams/{stage}/pending/{entry_id}/dead-letter", self.post_dead_letter)

    async def get_streams(self, _request: web.Request) -> web.Response:
        """Depth, lag, pending entries and consumers of every stage and lane."""
        return json_response(await self._inspector.streams())

    async def get_pending(self, request: web.Request) -> web.Response:
        """The entries that consumers of a stage hold, with their jobs and urls."""
        stage = _stage(request)
        idle_over = duration_query(request, "idle_over") or 0.0
        limit = integer_query(request, "limit", default=100, highest=MAX_ENTRIES, lowest=1)
        try:
            page = await self._inspector.pending(
                stage, idle_over=idle_over, after=request.query.get("after"), limit=limit
            )
        except ValueError as error:
            raise unprocessable("after must be `next` of the page before") from error
        return json_response(page)

    async def post_claim(self, request: web.Request) -> web.Response:
        """Hold an entry for one lease, so that nobody works on it."""
        return json_response(await self._operators[_stage(request)].claim(_wanted(request)))

    async def post_release(self, request: web.Request) -> web.Response:
        """Give an entry to the next worker that asks."""
        return json_response(await self._operators[_stage(request)].release(_wanted(request)))

    async def post_dead_letter(self, request: web.Request) -> web.Response:
        """Give up the documents of an entry: they become dead letters."""
        request[DEADLINE].start(LONG)
        reason = storable(request.query.get("reason", "")) or _NO_REASON
        return json_response(await self._operators[_stage(request)].dead_letter(_wanted(request), reason))


def _wanted(request: web.Request) -> WantedEntry:
    entry_id = request.match_info["entry_id"]
    if not re.fullmatch(ENTRY_ID, entry_id):
        raise NotPendingError(f"there is no entry {entry_id[:64]!r}")
    return WantedEntry(id=entry_id, lane=lane_query(request), consumer=request.query.get("consumer"))


def _stage(request: web.Request) -> StageName:
    text = request.match_info["stage"]
    try:
        return StageName(text)
    except ValueError as error:
        detail = f"there is no stage {text[:64]!r}; the stages are {', '.join(StageName)}"
        raise ProblemError(404, "Not Found", detail) from error
