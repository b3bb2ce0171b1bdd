"""The routes of the pipeline as a whole: now, live, and over the last hour."""

import asyncio
import contextlib
import time

import msgspec
from aiohttp import web
from aiohttp_sse import sse_response

from ingest.http.deadline import DEADLINE, LONG
from ingest.inspection.history import History, last_hour
from ingest.inspection.watch import INTERVAL, Overview, PipelineWatch
from shared.service.clients import PostgresPool
from shared.service.http import json_response
from shared.service.routes import route

_HISTORY_SECONDS = 5.0  # for which one reading answers all requests


class PipelineApi:
    """Handlers of /api/pipeline."""

    def __init__(self, watch: PipelineWatch, pool: PostgresPool, stop: asyncio.Event) -> None:
        self._watch = watch
        self._pool = pool
        self._stop = stop
        self._history: History | None = None
        self._history_until = 0.0
        self._reading = asyncio.Lock()

    @route("GET /api/pipeline", "The state of the pipeline", {200: Overview})
    async def get_pipeline(self, _request: web.Request) -> web.Response:
        """Streams, backlog and dead letters, as read within the last seconds."""
        return json_response(self._watch.latest)

    @route("GET /api/pipeline/history", "The last hour by minutes", {200: History})
    async def get_history(self, request: web.Request) -> web.Response:
        request[DEADLINE].start(LONG)
        async with self._reading:
            if self._history is None or time.monotonic() > self._history_until:
                self._history = await last_hour(self._pool)
                self._history_until = time.monotonic() + _HISTORY_SECONDS
        return json_response(self._history)

    @route(
        "GET /api/pipeline/events",
        "The state of the pipeline, as it changes",
        {200: str},
        is_described=False,
    )
    async def get_events(self, request: web.Request) -> web.StreamResponse:
        """The answer of get_pipeline as a server-sent event every two seconds."""
        async with sse_response(request) as response:
            # The client disconnected, or stopped reading.
            with contextlib.suppress(ConnectionError, TimeoutError):
                while response.is_connected() and not self._stop.is_set():
                    await response.send(
                        msgspec.json.encode(self._watch.latest).decode(), event="overview"
                    )
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(INTERVAL):
                            await self._stop.wait()
        return response
