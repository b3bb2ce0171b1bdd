"""The route of a job's events."""

import asyncio
import contextlib

import msgspec
from aiohttp import web
from aiohttp_sse import EventSourceResponse, sse_response

from ingest.http.job_events import END, JobFeed
from ingest.http.queries import unprocessable
from ingest.http.routes.jobs import found, job_id_of
from ingest.jobs.store import Job, JobStore
from shared.service.errors import DependencyError

_POLL = 0.25
_RETRY_MS = 1000
_MAX_DIGITS = 10


class JobEventsApi:
    """Handler of /api/jobs/{job_id}/events."""

    def __init__(self, store: JobStore, stop: asyncio.Event) -> None:
        self._store = store
        self._stop = stop

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/api/jobs/{job_id}/events", self.get_events)

    async def get_events(self, request: web.Request) -> web.StreamResponse:
        """Progress, results and end as server-sent events; 204 for who has seen the end, so that it stays away."""
        job_id = job_id_of(request)
        last_seen = request.headers.get("Last-Event-ID") or request.query.get("last_event_id") or "0"
        job: Job = found(await self._store.get(job_id), job_id)
        if last_seen == END and job.status.is_terminal:
            return web.Response(status=204)
        feed = JobFeed(self._store, job_id, _sent(last_seen, job))
        async with sse_response(request) as response:
            with contextlib.suppress(ConnectionError, TimeoutError):  # the client went, or takes nothing any more
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
            except DependencyError:  # the client comes back, and goes on where it was
                return
            if feed.is_over:
                return
            await asyncio.sleep(_POLL)


def _sent(last_seen: str, job: Job) -> int:
    if last_seen == END:  # and a retry has opened the job again
        return job.total
    if not last_seen.isascii() or not last_seen.isdecimal() or len(last_seen) > _MAX_DIGITS:
        raise unprocessable("Last-Event-ID must be the id of an event of this job")
    return int(last_seen)
