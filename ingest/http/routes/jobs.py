"""The routes of jobs: read, wait, list, retry, cancel."""

import asyncio
from typing import Annotated, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from ingest.http.deadline import DEADLINE
from ingest.jobs.control import JobControl
from ingest.jobs.store import JobFilter, JobList, JobPage, JobStore
from shared.jobs.operations import OperationLog
from shared.runtime.recorder import report_job
from shared.service.http import ProblemError, json_response
from shared.service.parameters import JobId
from shared.service.routes import route
from shared.service.settings import Seconds

T = TypeVar("T")

MAX_WAIT_S = 60.0
_SHORTEST_POLL_S, _LONGEST_POLL_S = 0.02, 0.1  # in between, a twentieth of the time waited so far


class JobQuery(msgspec.Struct, frozen=True, kw_only=True):
    wait: Seconds | None = None
    offset: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0  # a position is an int4
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000


class Retried(msgspec.Struct, frozen=True, kw_only=True):
    job_id: str
    retried: int  # documents


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    job_id: str
    cancelled: int  # documents


class JobsApi:
    """Handlers of /api/jobs."""

    def __init__(
        self, store: JobStore, control: JobControl, operations: OperationLog, stop: asyncio.Event
    ) -> None:
        self._store = store
        self._control = control
        self._operations = operations
        self._stop = stop

    @route("GET /api/jobs", "List jobs", {200: JobList})
    async def get_jobs(self, _request: web.Request, query: JobFilter) -> web.Response:
        """A list of jobs, newest first."""
        return json_response(await self._store.list(query))

    @route("GET /api/jobs/{job_id}", "One job with its results", {200: JobPage})
    async def get_job(self, request: web.Request, job_id: JobId, query: JobQuery) -> web.Response:
        """One job with a page of its results, at most `wait` seconds later, or as soon as it has
        ended.
        """
        await self._wait_until_terminal(request, job_id, min(query.wait or 0.0, MAX_WAIT_S))
        page = found(await self._store.page(job_id, query.offset, query.limit), job_id)
        return json_response(page)

    @route("POST /api/jobs/{job_id}/retry", "Retry the failed documents of a job", {202: Retried})
    async def post_retry(self, _request: web.Request, job_id: JobId) -> web.Response:
        """Queue every failed document that can still succeed."""
        found(await self._store.get(job_id), job_id)
        return json_response(
            Retried(job_id=job_id, retried=await self._control.retry_failed(job_id)), 202
        )

    @route("DELETE /api/jobs/{job_id}", "Cancel the queued documents of a job", {200: Cancelled})
    async def delete_job(self, _request: web.Request, job_id: JobId) -> web.Response:
        """Cancel every queued document; those in the streams continue."""
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
            await asyncio.sleep(
                min(_LONGEST_POLL_S, max(_SHORTEST_POLL_S, (loop.time() - started) / 20))
            )
            request[DEADLINE].start()


def found(job: T | None, job_id: str) -> T:
    """The job, or 404."""
    if job is None:
        raise ProblemError(404, "Not Found", f"there is no job {job_id!r}")
    return job
