"""The routes that show the streams: how full every stage is, and who holds which entry."""

from aiohttp import web

from ingest.queries import duration_query, integer_query, unprocessable
from shared.http import ProblemError, json_response
from shared.inspection import StreamInspector
from shared.streams import StageName

MAX_ENTRIES = 1000


class StreamsApi:
    """Handlers of /api/streams."""

    def __init__(self, inspector: StreamInspector) -> None:
        self._inspector = inspector

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/api/streams", self.get_streams)
        app.router.add_get("/api/streams/{stage}/pending", self.get_pending)

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


def _stage(request: web.Request) -> StageName:
    text = request.match_info["stage"]
    try:
        return StageName(text)
    except ValueError as error:
        detail = f"there is no stage {text[:64]!r}; the stages are {', '.join(StageName)}"
        raise ProblemError(404, "Not Found", detail) from error
