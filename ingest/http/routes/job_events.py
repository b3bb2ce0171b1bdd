"""The route of a job's events."""

import asyncio
import contextlib
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import msgspec
from aiohttp import web
from aiohttp_sse import EventSourceResponse, sse_response
from msgspec import UNSET

from ingest.http.job_events import END, JobFeed
from ingest.http.routes.jobs import found
from ingest.jobs.store import Job, JobStore
from shared.service.errors import DependencyError
from shared.service.parameters import JobId, unprocessable
from shared.service.routes import route

_POLL_S = 0.25
_RETRY_MS = 1000


class EventId(str):
    """The id of an event: how many results were sent before and with it, or `end`."""

    __slots__ = ()
    _form: ClassVar[re.Pattern[str]] = re.compile(f"[0-9]{{1,9}}|{END}")  # a position is an int4
    expected: ClassVar[str] = "the id of an event of this job"
    schema: ClassVar[Mapping[str, Any]] = {"type": "string", "pattern": f"^([0-9]{{1,9}}|{END})$"}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for an invalid id."""
        if not cls._form.fullmatch(text):
            raise ValueError(f"expected {cls.expected}")
        return cls(text)


class EventsQuery(msgspec.Struct, frozen=True, kw_only=True):
    last_event_id: EventId | None = None  # for clients that cannot set the header


class JobEvent(msgspec.Struct):
    """One server-sent event; `data` is JSON: the job without its results, or one result."""

    event: Literal["progress", "result", "end"]
    data: str
    id: str | msgspec.UnsetType = UNSET  # see EventId
    retry: int | msgspec.UnsetType = UNSET  # milliseconds


class JobEventsApi:
    """Handler of /api/jobs/{job_id}/events."""

    def __init__(self, store: JobStore, stop: asyncio.Event) -> None:
        self._store = store
        self._stop = stop

    @route(
        "GET /api/jobs/{job_id}/events",
        "A job as server-sent events",
        {200: JobEvent, 204: type(None)},
        media="text/event-stream",
    )
    async def get_events(
        self, request: web.Request, job_id: JobId, query: EventsQuery
    ) -> web.StreamResponse:
        """Progress, results and end.

        A client that has read the end gets 204, after which browsers stop asking.
        """
        last_seen = _last_seen(request, query)
        job: Job = found(await self._store.get(job_id), job_id)
        if last_seen == END and job.status.is_terminal:
            return web.Response(status=204)
        # Not terminal after `end`: a retry has reopened the job.
        sent = job.total if last_seen == END else int(last_seen)
        feed = JobFeed(self._store, job_id, sent)
        async with sse_response(request) as response:
            # The client disconnected, or stopped reading.
            with contextlib.suppress(ConnectionError, TimeoutError):
                await self._send(response, feed)
        return response

    async def _send(self, response: EventSourceResponse, feed: JobFeed) -> None:
        retry: int | None = _RETRY_MS
        while not self._stop.is_set() and response.is_connected():
            try:
                async for event in feed.poll():
                    data = msgspec.json.encode(event.data).decode()
                    await response.send(data, id=event.id, event=event.name, retry=retry)
                    retry = None
            except DependencyError:  # the client reconnects and continues after the last event
                return
            if feed.is_over:
                return
            await asyncio.sleep(_POLL_S)


def _last_seen(request: web.Request, query: EventsQuery) -> str:
    header = request.headers.get("Last-Event-ID")
    try:
        return EventId.parse(header) if header else query.last_event_id or "0"
    except ValueError as error:
        raise unprocessable(f"invalid value for the header `Last-Event-ID`: {error}") from error
