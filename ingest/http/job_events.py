"""A job's life as server-sent events: its counters whenever they change, its results in input order, its end.

The id of an event says how many results were sent, so that a client that comes back goes on where it was.
"""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from ingest.jobs.store import Job, JobStore

END = "end"  # the id of the last event
_PAGE = 500


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One server-sent event; one without an id leaves the client's as it is."""

    name: str
    data: Any
    id: str | None = None


class JobFeed:
    """What a client of one job's events has not seen yet."""

    def __init__(self, store: JobStore, job_id: str, sent: int) -> None:
        self._store = store
        self._job_id = job_id
        self._sent = sent  # results, from the first position on
        self._shown: Job | None = None
        self.is_over = False

    async def poll(self) -> AsyncIterator[Event]:
        """What is new, in order; nothing if nothing changed. Raises DependencyError when Postgres is away.

        A result comes when all before it have ended. One that a retry changes later does not come again.
        """
        job = await self._store.get(self._job_id)
        if job is None:  # removed with age
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
        """The next results that have ended; a page of them is in memory, however many there are."""
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
