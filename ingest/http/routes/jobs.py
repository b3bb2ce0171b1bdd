"""The routes about jobs: read, wait, list, retry, cancel."""

import asyncio
import uuid
from typing import TypeVar

import msgspec
from aiohttp import web

from ingest.http.deadline import DEADLINE
from ingest.http.queries import duration_query, integer_query, status_query
from ingest.jobs.control import JobControl
from ingest.jobs.store import JobFilter, JobPage, JobStore
from shared.jobs.operations import OperationLog
from shared.runtime.recorder import report_job
from shared.service.http import ProblemError, json_response

T = TypeVar("T")

MAX_RESULTS = 1000
MAX_WAIT = 60.0
_SHORTEST_POLL, _LONGEST_POLL = 0.02, 0.1  # seconds; in between a twentieth of what was waited already


class Retried(msgspec.Struct, frozen=True, kw_only=True):
    job_id: str
    retried: int  # documents


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    job_id: str
    cancelled: int  # documents


class JobsApi:
    """Handlers of /api/jobs."""

    def __init__(self, store: JobStore, control: JobControl, operations: OperationLog, stop: asyncio.Event) -> None:
        self._store = store
        self._control = control
        self._operations = operations
        self._stop = stop

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/api/jobs", self.get_jobs)
        app.router.add_get("/api/jobs/{job_id}", self.get_job)
        app.router.add_post("/api/jobs/{job_id}/retry", self.post_retry)
        app.router.add_delete("/api/jobs/{job_id}", self.delete_job)

    async def get_jobs(self, request: web.Request) -> web.Response:
        """A list of jobs, newest first."""
        wanted = JobFilter(
            status=status_query(request, "status"),
            older_than=duration_query(request, "older_than"),
            crawl_id=request.query.get("crawl_id"),
            after=request.query.get("after"),
            limit=integer_query(request, "limit", default=100, highest=MAX_RESULTS),
        )
        try:
            return json_response(await self._store.list(wanted))
        except ValueError as error:
            raise ProblemError(422, "Unprocessable Content", "after must be `next` of the page before") from error

    async def get_job(self, request: web.Request) -> web.Response:
        """One job with a page of its results; `wait` seconds at most until it is terminal."""
        job_id = job_id_of(request)
        offset = integer_query(request, "offset", default=0, highest=2**31 - 1)
        limit = integer_query(request, "limit", default=MAX_RESULTS, highest=MAX_RESULTS, lowest=1)
        wait = min(duration_query(request, "wait") or 0.0, MAX_WAIT)
        await self._wait_until_terminal(request, job_id, wait)
        page: JobPage = found(await self._store.page(job_id, offset, limit), job_id)
        return json_response(page)

    async def post_retry(self, request: web.Request) -> web.Response:
        """Queue again what failed and can still succeed."""
        job_id = job_id_of(request)
        found(await self._store.get(job_id), job_id)
        return json_response(Retried(job_id=job_id, retried=await self._control.retry_failed(job_id)), 202)

    async def delete_job(self, request: web.Request) -> web.Response:
        """Cancel what has not started; what is in the streams goes on."""
        job_id = job_id_of(request)
        found(await self._store.get(job_id), job_id)
        cancellation = await self._control.cancel(job_id)
        for job in cancellation.jobs:
            report_job(job, self._operations)
        return json_response(Cancelled(job_id=job_id, cancelled=cancellation.cancelled))

    async def _wait_until_terminal(self, request: web.Request, job_id: str, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        while loop.time() < started + seconds and not self._stop.is_set():
            job = found(await self._store.get(job_id), job_id)
            if job.status.is_terminal:
                return
            request[DEADLINE].lift()
            await asyncio.sleep(min(_LONGEST_POLL, max(_SHORTEST_POLL, (loop.time() - started) / 20)))
            request[DEADLINE].start()


def job_id_of(request: web.Request) -> str:
    """The id in the path; what can be none is 404."""
    text = request.match_info["job_id"]
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise ProblemError(404, "Not Found", f"there is no job {text[:64]!r}") from error


def found(job: T | None, job_id: str) -> T:
    """The job, or 404."""
    if job is None:
        raise ProblemError(404, "Not Found", f"there is no job {job_id!r}")
    return job
