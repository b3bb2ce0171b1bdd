"""The events of a job: its counters whenever they change, its results in the order of the request,
its end.

The id of an event is the number of results sent so far. A client that reconnects continues after
it.
"""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from ingest.jobs.store import Job, JobStore

END = "end"  # the id of the last event
_PAGE = 500


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One server-sent event. One without an id does not change the id that the client remembers."""

    name: str
    data: Any
    id: str | None = None


class JobFeed:
    """The events of one job that a client has not received."""

    def __init__(self, store: JobStore, job_id: str, sent: int) -> None:
        self._store = store
        self._job_id = job_id
        self._sent = sent  # number of results, from the first position on
        self._shown: Job | None = None
        self.is_over = False

    async def poll(self) -> AsyncIterator[Event]:
        """The new events, in order. Raises DependencyError when Postgres is unavailable.

        A result is sent when all results before it have ended. A result that a retry changes is not
        sent again.
        """
        job = await self._store.get(self._job_id)
        if job is None:  # deleted by its retention
            self.is_over = True
            return
        if job == self._shown:
            return
        yield Event(name="progress", data=job)
        async for event in self._results(job):
            yield event
        self._shown = job
        if job.status.is_terminal and self._sent >= job.total:
            self.is_over = True
            yield Event(name=END, data=job, id=END)

    async def _results(self, job: Job) -> AsyncIterator[Event]:
        """The next results that have ended; only a page of them is in memory."""
        is_more = True
        while is_more and self._sent < job.total:
            page = await self._store.page(self._job_id, self._sent, _PAGE)
            results = page.results if page else []
            is_more = len(results) == _PAGE
            for result in results:
                if result.success is None:
                    return
                self._sent += 1
                yield Event(name="result", data=result, id=str(self._sent))
